-- The whole life of a key. Counters and settings stand in the key's own row, so that the gate reads one row;
-- keys that share a limit of credits name the key in whose row it stands.

CREATE TABLE peppers (
    id TEXT PRIMARY KEY,
    proof BLOB NOT NULL,                    -- what the pepper makes of a fixed text: tells whether a process has the right one
    created_at BIGINT NOT NULL
);

ALTER TABLE api_keys ADD COLUMN pepper TEXT;                  -- hash = HMAC-SHA-256(this pepper, SHA-256 of the key); none = bare SHA-256, not wrapped yet
ALTER TABLE api_keys ADD COLUMN note TEXT;
ALTER TABLE api_keys ADD COLUMN environment TEXT NOT NULL DEFAULT 'live';  -- live, test
ALTER TABLE api_keys ADD COLUMN stage TEXT;
ALTER TABLE api_keys ADD COLUMN scopes INTEGER NOT NULL DEFAULT 32767;     -- a bit for each scope; 32767 = *
ALTER TABLE api_keys ADD COLUMN suspended_until BIGINT;
ALTER TABLE api_keys ADD COLUMN suspended_note TEXT;          -- for operators
ALTER TABLE api_keys ADD COLUMN not_before BIGINT;
ALTER TABLE api_keys ADD COLUMN allow TEXT NOT NULL DEFAULT '';            -- networks, with blanks between them; empty = anywhere
ALTER TABLE api_keys ADD COLUMN limits TEXT NOT NULL DEFAULT '[]';         -- JSON: named sliding windows
ALTER TABLE api_keys ADD COLUMN external_id TEXT;
ALTER TABLE api_keys ADD COLUMN meta TEXT;                    -- JSON
ALTER TABLE api_keys ADD COLUMN made_by_key BLOB;             -- who made it: this key, this person, or (neither) an operator
ALTER TABLE api_keys ADD COLUMN made_by_person TEXT;
ALTER TABLE api_keys ADD COLUMN family BLOB;                  -- the first key of its rotations: they share requests and tasks
ALTER TABLE api_keys ADD COLUMN budget BLOB;                  -- the key in whose row the counters below stand
ALTER TABLE api_keys ADD COLUMN credit_limit BIGINT;
ALTER TABLE api_keys ADD COLUMN credit_used BIGINT NOT NULL DEFAULT 0;     -- of the limit; what tasks have reserved included
ALTER TABLE api_keys ADD COLUMN refill_interval TEXT;         -- daily, monthly
ALTER TABLE api_keys ADD COLUMN refill_amount BIGINT;
ALTER TABLE api_keys ADD COLUMN refill_day SMALLINT;          -- of the month
ALTER TABLE api_keys ADD COLUMN refill_at BIGINT;             -- the next
ALTER TABLE api_keys ADD COLUMN replaced_by BLOB;             -- the key that a rotation put in its place
ALTER TABLE api_keys ADD COLUMN ended_at BIGINT;              -- when it was last switched off, suspended or deleted
UPDATE api_keys SET budget = id, family = id;
CREATE INDEX api_keys_bare ON api_keys (id) WHERE pepper IS NULL;
CREATE INDEX api_keys_by_maker ON api_keys (made_by_key) WHERE made_by_key IS NOT NULL;
CREATE INDEX api_keys_by_external_id ON api_keys (account_id, external_id, id) WHERE external_id IS NOT NULL;
CREATE INDEX api_keys_by_family ON api_keys (family);

ALTER TABLE tasks ADD COLUMN key_reserved BIGINT;          -- credits reserved of the submitting key's limit, until they are counted
CREATE INDEX tasks_uncounted ON tasks (id) WHERE key_reserved IS NOT NULL;
CREATE INDEX tasks_by_key ON tasks (created_by_key, id) WHERE deleted_at IS NULL;
ALTER TABLE checks ADD COLUMN key_id BLOB;
ALTER TABLE checks ADD COLUMN key_reserved SMALLINT NOT NULL DEFAULT 0;  -- 1 = it took from the key's own limit

-- Credits charged by key and hour, counted when a task ends or a single verification is charged.
CREATE TABLE usage_credits (
    key_id BLOB NOT NULL,
    hour BIGINT NOT NULL,                    -- its first millisecond
    account_id BLOB NOT NULL,
    credits BIGINT NOT NULL,
    PRIMARY KEY (key_id, hour)
);
CREATE INDEX usage_credits_by_account ON usage_credits (account_id, hour);
