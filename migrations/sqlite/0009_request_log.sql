-- What the gate decided, and what that adds up to. Rows of request_log are never changed; they are removed
-- by age and number.

CREATE TABLE request_log (
    id INTEGER PRIMARY KEY,                  -- at × 2^22, and a number that tells those of a millisecond apart
    account_id BLOB,                         -- none = nobody's key; else that of the key, deleted ones included
    key_id BLOB,
    at BIGINT NOT NULL,                      -- when the request arrived
    outcome SMALLINT NOT NULL,               -- 0 accepted; else the check that refused, see domain/request.rs
    ip TEXT,                                 -- the caller's
    method TEXT NOT NULL,
    route TEXT NOT NULL,                     -- the path that matched, such as /v1/tasks/{id}
    status SMALLINT NOT NULL,                -- of the answer; 499 = the caller had gone
    latency_us INTEGER NOT NULL,             -- microseconds until the answer's head was ready
    request_id TEXT NOT NULL
);
CREATE INDEX request_log_by_account ON request_log (account_id, id);
CREATE INDEX request_log_by_key ON request_log (key_id, id);
CREATE INDEX request_log_refused ON request_log (account_id, outcome, id) WHERE outcome <> 0;

-- How many rows of each hour there are, so that nobody counts them. slot: spreads those who write at the same
-- time; -1 = what was removed.
CREATE TABLE request_log_hours (
    at BIGINT NOT NULL,
    slot SMALLINT NOT NULL,
    entries BIGINT NOT NULL,
    PRIMARY KEY (at, slot)
) WITHOUT ROWID;

-- Requests by hour and by day, all of them, whether they have a row in request_log or not. No account and no
-- key are the nil UUID; network: a /24 or /64, `other` beyond the first of a key and hour, `none`.
CREATE TABLE usage_hours (
    account_id BLOB NOT NULL,
    key_id BLOB NOT NULL,
    at BIGINT NOT NULL,                      -- when the hour begins
    outcome SMALLINT NOT NULL,
    route TEXT NOT NULL,
    network TEXT NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (account_id, key_id, at, outcome, route, network)
) WITHOUT ROWID;
CREATE INDEX usage_hours_by_account ON usage_hours (account_id, at);
CREATE INDEX usage_hours_by_age ON usage_hours (at);

CREATE TABLE usage_days (
    account_id BLOB NOT NULL,
    key_id BLOB NOT NULL,
    at BIGINT NOT NULL,                      -- when the day begins, UTC
    outcome SMALLINT NOT NULL,
    route TEXT NOT NULL,
    network TEXT NOT NULL,
    requests BIGINT NOT NULL,
    PRIMARY KEY (account_id, key_id, at, outcome, route, network)
) WITHOUT ROWID;
CREATE INDEX usage_days_by_account ON usage_days (account_id, at);
CREATE INDEX usage_days_by_age ON usage_days (at);

-- The last accepted call with each key.
CREATE TABLE key_last_used (
    key_id BLOB PRIMARY KEY,
    at BIGINT NOT NULL,
    ip TEXT,
    route TEXT NOT NULL
) WITHOUT ROWID;
