-- Scopes, end, limit and last use of API keys, the key behind each event, and notification secrets by host.

ALTER TABLE api_keys
    ADD COLUMN scopes              text[]      NOT NULL DEFAULT '{orders,read,metrics,operate}',
    ADD COLUMN expires_at          timestamptz,
    ADD COLUMN requests_per_minute integer     CHECK (requests_per_minute >= 1),
    ADD COLUMN last_used_at        timestamptz;
COMMENT ON COLUMN api_keys.scopes IS 'what it may do; a key of an earlier version may do everything';
COMMENT ON COLUMN api_keys.requests_per_minute IS 'in each web process; NULL: no limit';
COMMENT ON COLUMN api_keys.last_used_at IS 'to the minute: web processes write it beside their requests';

ALTER TABLE order_events ADD COLUMN api_key text;
COMMENT ON COLUMN order_events.api_key IS 'id of the API key whose request made the change; NULL: no request of the API';

CREATE TABLE notify_secrets (
    host       text        PRIMARY KEY CHECK (host ~ '^[0-9a-z.:_-]{1,253}$'),
    secrets    smallint    NOT NULL CHECK (secrets IN (1, 2)),
    sealed     bytea       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE notify_secrets IS 'notifications to these hosts are signed with their own secrets; all others with NOTIFY_SECRETS';
COMMENT ON COLUMN notify_secrets.sealed IS 'key id, nonce and AES-256-GCM ciphertext of a JSON list of secrets, newest first';
