-- The page may say that it waits for the buyer to pay: nobody was sent to a channel since the channels said *unpaid*.

ALTER TABLE orders ADD COLUMN unpaid_version integer;
COMMENT ON COLUMN orders.unpaid_version IS 'the buyer came back, and every payment was unpaid after that: true only while the order has this version';
