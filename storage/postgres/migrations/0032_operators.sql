-- The people who use the console, their sessions, and how often somebody tried to sign in; and rows of the audit are only
-- ever added, whoever is connected.

CREATE TABLE operators (
    name         text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9._-]{0,39}$'),
    role         text        NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password     text        NOT NULL,
    must_change  boolean     NOT NULL DEFAULT true,
    totp         bytea,
    totp_pending bytea,
    totp_step    bigint      NOT NULL DEFAULT 0,
    epoch        integer     NOT NULL DEFAULT 0,
    language     text        NOT NULL DEFAULT '',
    theme        text        NOT NULL DEFAULT '' CHECK (theme IN ('', 'light', 'dark')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    signed_in_at timestamptz,
    disabled_at  timestamptz
);
COMMENT ON TABLE operators IS 'disabled and never deleted: the audit names them for ever';
COMMENT ON COLUMN operators.password IS 'argon2id with its parameters and salt, in PHC form';
COMMENT ON COLUMN operators.must_change IS 'the password was printed for somebody: it opens the page on which it is changed, and no other';
COMMENT ON COLUMN operators.totp IS 'the secret of the codes, sealed; NULL: none are needed';
COMMENT ON COLUMN operators.totp_pending IS 'a secret that was shown and not confirmed by a code yet';
COMMENT ON COLUMN operators.totp_step IS 'the last step whose code was used: no code is used twice';
COMMENT ON COLUMN operators.epoch IS 'moves when rights are taken away or the password changes: a session of an earlier one is over';
COMMENT ON COLUMN operators.language IS 'empty: as the browser prefers';

CREATE TABLE operator_sessions (
    digest     bytea       PRIMARY KEY CHECK (length(digest) = 32),
    id         text        NOT NULL UNIQUE,
    operator   text        NOT NULL REFERENCES operators (name),
    epoch      integer     NOT NULL,
    address    text        NOT NULL,
    device     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    notice     jsonb
);
CREATE INDEX operator_sessions_of ON operator_sessions (operator, created_at);
CREATE INDEX operator_sessions_seen ON operator_sessions (seen_at);
COMMENT ON COLUMN operator_sessions.digest IS 'SHA-256 of the 256 random bits in the cookie';
COMMENT ON COLUMN operator_sessions.id IS 'names the session on pages: it opens nothing';
COMMENT ON COLUMN operator_sessions.seen_at IS 'the last request, to the minute';
COMMENT ON COLUMN operator_sessions.notice IS 'what the next page says once';

CREATE TABLE sign_in_limits (
    key   bytea       PRIMARY KEY CHECK (length(key) = 32),
    until timestamptz NOT NULL
);
CREATE INDEX sign_in_limits_until ON sign_in_limits (until);
COMMENT ON TABLE sign_in_limits IS 'one row for whatever is limited: each try moves its time ahead, and none may be far ahead';
COMMENT ON COLUMN sign_in_limits.key IS 'a digest: a password that was typed as a name is kept nowhere';

-- Both locks are taken at once, and the table is small: it has what people did.
ALTER TABLE audit DROP CONSTRAINT audit_via_check,
                  ADD CONSTRAINT audit_via_check CHECK (via IN ('command', 'api', 'console'));

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are added, and neither changed nor deleted', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
