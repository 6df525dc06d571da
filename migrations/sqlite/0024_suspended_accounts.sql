-- Accounts whose use an operator has stopped, and workers that are told to end. A row here is a suspension that
-- holds; what was lifted stands in the audit log alone.

CREATE TABLE suspended_accounts (
    account_id BLOB PRIMARY KEY REFERENCES accounts (id),
    reason TEXT NOT NULL,                    -- what its people and programs are told
    contact TEXT NOT NULL,                   -- whom they can ask
    since BIGINT NOT NULL
) WITHOUT ROWID;

ALTER TABLE workers ADD COLUMN can_drain BOOLEAN NOT NULL DEFAULT FALSE;  -- a process of its own, that ends when it is told to
ALTER TABLE workers ADD COLUMN drain BOOLEAN NOT NULL DEFAULT FALSE;      -- it is told to
