-- Keys that are verified for other programs: each belongs to an api of an account, opens nothing here, and is
-- managed with root keys.

CREATE TABLE apis (
    id UUID PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT                        -- its keys are gone with it
);
CREATE INDEX apis_by_account ON apis (account_id, id);

CREATE TABLE root_keys (
    id UUID PRIMARY KEY,
    account_id UUID NOT NULL REFERENCES accounts (id),
    hash BYTEA NOT NULL UNIQUE,              -- HMAC-SHA-256(pepper, SHA-256 of the key)
    pepper TEXT NOT NULL,
    start TEXT NOT NULL,                     -- first characters, for people
    name TEXT NOT NULL,
    permissions TEXT NOT NULL,               -- with blanks between them
    created_at BIGINT NOT NULL,
    deleted_at BIGINT
);
CREATE INDEX root_keys_by_account ON root_keys (account_id, id);

ALTER TABLE api_keys
    ADD COLUMN api_id UUID,                  -- none = a key of our own gate
    ADD COLUMN service TEXT;                 -- JSON: what only keys of an api have; always read and written as a whole
CREATE INDEX api_keys_by_api ON api_keys (api_id, id) WHERE api_id IS NOT NULL;
