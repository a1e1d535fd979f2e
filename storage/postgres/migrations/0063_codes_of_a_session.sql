-- A secret of codes that is not confirmed yet belongs to the session that has asked for it, and ends.

ALTER TABLE operator_sessions
    ADD COLUMN totp_pending    bytea,
    ADD COLUMN totp_pending_at timestamptz,
    ADD CONSTRAINT operator_sessions_totp_pending CHECK ((totp_pending IS NULL) = (totp_pending_at IS NULL));
COMMENT ON COLUMN operator_sessions.totp_pending IS 'a secret that was shown in this session and not confirmed by a code yet, sealed';

UPDATE operators SET totp_pending = NULL WHERE totp_pending IS NOT NULL;
COMMENT ON COLUMN operators.totp_pending IS 'no longer used: operator_sessions has it';
