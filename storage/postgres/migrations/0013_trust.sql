-- Callbacks that are not wholly signed, questions without an answer, and payments that nothing but a callback has paid.

ALTER TABLE callbacks ADD COLUMN is_hint boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN callbacks.is_hint IS 'its signature does not cover the whole body: it leads to a query and has no other effect';

-- Kept only for accounts whose trust_callback is "when_unanswered".
ALTER TABLE pending ADD COLUMN unanswered_since timestamptz, ADD COLUMN verified_at timestamptz;
COMMENT ON COLUMN pending.unanswered_since IS 'when the first query went out that got no verified answer; null again after a verified one';
COMMENT ON COLUMN pending.verified_at IS 'when the last verified answer to a query came';

ALTER TABLE payments ADD COLUMN unconfirmed_since timestamptz CHECK (unconfirmed_since IS NULL OR status = 'paid');
COMMENT ON COLUMN payments.unconfirmed_since IS 'a callback alone has paid it then, and no query has confirmed that yet';
