-- What a refused callback says of itself, without proof: the id of its message, by which the order becomes known once the
-- same message comes again and is genuine; the serial of its key, and when it was signed.
ALTER TABLE refused_callbacks
    ADD COLUMN claimed_id     text,
    ADD COLUMN claimed_serial text NOT NULL DEFAULT '',
    ADD COLUMN claimed_at     text NOT NULL DEFAULT '';
COMMENT ON COLUMN refused_callbacks.claimed_id IS 'the channel''s id of the message, as its body has it';
COMMENT ON COLUMN refused_callbacks.claimed_serial IS 'which key has signed it, as a header has it';
COMMENT ON COLUMN refused_callbacks.claimed_at IS 'when it was signed, as a header has it: seconds, or ISO 8601';
