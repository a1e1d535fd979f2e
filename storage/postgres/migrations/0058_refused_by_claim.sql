-- Refused callbacks by the message that they claim to be: of an order, and of a number that somebody holds.
CREATE INDEX CONCURRENTLY IF NOT EXISTS refused_by_claim ON refused_callbacks (channel_account, claimed_id) WHERE claimed_id IS NOT NULL;
