-- What was changed by API and command line, and by whom. Rows are never changed or removed.
-- A chain per account, and one for what belongs to no account (the nil id): each row holds the hash of the row
-- before it, and its own over all that it holds.
CREATE TABLE audit_log (
    chain UUID NOT NULL,                    -- the account's id, or nil
    seq BIGINT NOT NULL,                     -- from 1, without a gap
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,                     -- key:ID, person:EMAIL, operator, system
    ip TEXT,                                 -- the caller's address
    request_id TEXT,
    action TEXT NOT NULL,                    -- such as key.disable
    target TEXT NOT NULL,                    -- what was changed: an id, a network
    before TEXT,                             -- JSON, as it is shown outside; none = there was nothing
    after TEXT,                              -- likewise; none = there is nothing any more
    hash BYTEA NOT NULL,                     -- SHA-256
    previous BYTEA NOT NULL,                 -- hash of the row before; 32 zero bytes before the first
    PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_log_by_action ON audit_log (chain, action, seq);
CREATE INDEX audit_log_by_target ON audit_log (chain, target, seq);

-- The last row of each chain. Whoever writes a row down holds its chain's head until the commit.
CREATE TABLE audit_heads (
    chain UUID PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash BYTEA NOT NULL
);
