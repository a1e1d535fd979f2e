-- The life of personal data: raw callbacks are sealed.

ALTER TABLE callbacks ADD COLUMN sealed_under text;
COMMENT ON COLUMN callbacks.sealed_under IS 'id of the master key that sealed the body; NULL: an earlier version stored it in the clear, or it is erased and empty';
COMMENT ON COLUMN callbacks.headers IS 'those that the channel''s signature needs';
