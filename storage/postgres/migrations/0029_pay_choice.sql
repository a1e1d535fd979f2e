-- Paying from the order's page: the accounts that the buyer may choose, and whom payments started there belong to.

ALTER TABLE orders
    ADD COLUMN accounts text[],
    ADD COLUMN payer    jsonb,
    -- Not validated: that would read every order under a lock, and none has the column yet.
    ADD CONSTRAINT orders_accounts CHECK (cardinality(accounts) BETWEEN 1 AND 10) NOT VALID;
COMMENT ON COLUMN orders.accounts IS 'what the buyer may choose on the page; null: the accounts that the order has payments at';
COMMENT ON COLUMN orders.payer IS 'kept for payments that the buyer starts; null once the order is paid or closed';
