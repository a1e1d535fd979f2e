-- One channel payment pays one order, whatever the account is called. An account's world is its channel, live or test, and
-- the host where that is not the channel's own: within it, the channel's transactions are unique.

ALTER TABLE accounts ADD COLUMN world text;
ALTER TABLE accounts ADD COLUMN collisions_checked_at timestamptz;
COMMENT ON COLUMN accounts.world IS 'channel, live or test, and a host of its own; filled by the processes, which open the sealed settings';
COMMENT ON COLUMN accounts.collisions_checked_at IS 'when payments of this account were last compared with those of other accounts in its world';

CREATE INDEX payments_by_transaction ON payments (channel_transaction_id) WHERE channel_transaction_id IS NOT NULL;

-- The fault has the name of the index that is unique for one account, so the code before this migration opens its case
-- too. Two statements at once for one transaction meet at the lock, and the second one sees what the first has written.
CREATE FUNCTION guard_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    own_world text;
BEGIN
    SELECT a.world INTO own_world FROM accounts a WHERE a.name = NEW.channel_account;
    IF own_world IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(own_world || ' ' || NEW.channel_transaction_id, 0));
    IF EXISTS (SELECT FROM payments p JOIN accounts a ON a.name = p.channel_account
                WHERE p.channel_transaction_id = NEW.channel_transaction_id AND a.world = own_world
                  AND (p.channel_account, p.out_trade_no) <> (NEW.channel_account, NEW.out_trade_no)) THEN
        RAISE EXCEPTION 'transaction % of payment % has another payment', NEW.channel_transaction_id, NEW.out_trade_no
            USING ERRCODE = 'unique_violation', CONSTRAINT = 'payments_transaction';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER guard_transaction AFTER UPDATE OF channel_transaction_id ON payments FOR EACH ROW
    WHEN (NEW.channel_transaction_id IS NOT NULL AND NEW.channel_transaction_id IS DISTINCT FROM OLD.channel_transaction_id)
    EXECUTE FUNCTION guard_transaction();
