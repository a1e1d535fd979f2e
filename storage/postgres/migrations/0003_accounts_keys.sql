-- Accounts at the channels, with their credentials sealed, and the API keys of the merchant's backends, hashed.

CREATE TABLE accounts (
    name        text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,39}$'),
    channel     text        NOT NULL,
    sealed      bytea       NOT NULL,
    enabled     boolean     NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN accounts.sealed IS 'key id, nonce and AES-256-GCM ciphertext of the account''s settings and credentials';

CREATE TABLE api_keys (
    id         text        PRIMARY KEY,
    name       text        NOT NULL,
    digest     bytea       NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
COMMENT ON COLUMN api_keys.digest IS 'SHA-256 of a 256-bit random key: nothing to guess, so no slow hash is needed';
