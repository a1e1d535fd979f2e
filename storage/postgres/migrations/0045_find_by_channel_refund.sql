-- An index of many keys a row is read through a bitmap alone, which the sessions of nodrop plan for no other statement.
CREATE FUNCTION find_payments_by_channel_refund(number text)
    RETURNS TABLE (order_no text, channel_account text) LANGUAGE plpgsql STABLE
    SET enable_bitmapscan = on SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY SELECT p.order_no, p.channel_account FROM payments p
                  WHERE p.channel_refunds <> '{}' AND p.channel_refunds ? number
                  LIMIT 20;
END $$;
