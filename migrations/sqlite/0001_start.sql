-- Times are milliseconds since the Unix epoch; credits are whole numbers.
-- Lock order, everywhere: task, batch, account.

CREATE TABLE accounts (
    id BLOB PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    password_hash TEXT,                      -- Argon2id; none = no dashboard login
    is_admin BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);

-- What may be spent, one row per account and kind of credit.
CREATE TABLE credit_balances (
    account_id BLOB NOT NULL REFERENCES accounts (id),
    kind TEXT NOT NULL,                      -- email, phone
    balance BIGINT NOT NULL CHECK (balance >= 0),
    PRIMARY KEY (account_id, kind)
);

-- Every movement of credits. Rows are never changed or removed.
CREATE TABLE ledger_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id BLOB NOT NULL REFERENCES accounts (id),
    kind TEXT NOT NULL,
    type TEXT NOT NULL,                      -- grant, hold, charge, refund, adjust
    amount BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    task_id BLOB,
    step BIGINT,                             -- the lease (hold) or settlement that moved them
    note TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX ledger_by_account ON ledger_entries (account_id, id);
CREATE UNIQUE INDEX ledger_once_per_step ON ledger_entries (step, type, task_id) WHERE step IS NOT NULL;

CREATE TABLE api_keys (
    id BLOB PRIMARY KEY,
    account_id BLOB NOT NULL REFERENCES accounts (id),
    hash BLOB NOT NULL UNIQUE,              -- SHA-256 of the key
    start TEXT NOT NULL,                     -- first characters, for people
    label TEXT NOT NULL,
    disabled BOOLEAN NOT NULL,
    suspended_reason TEXT,                   -- set = suspended
    deleted_at BIGINT,
    expires_at BIGINT,
    rate_limit BIGINT,                       -- requests a minute; none = the default
    created_at BIGINT NOT NULL
);
CREATE INDEX api_keys_by_account ON api_keys (account_id, id);

CREATE TABLE ip_blocks (
    cidr TEXT PRIMARY KEY,
    reason TEXT,
    created_at BIGINT NOT NULL
);

-- Numbers that processes watch. ip_blocks: raised with every change of that table.
CREATE TABLE versions (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO versions (name, value) VALUES ('ip_blocks', 1);

CREATE TABLE tasks (
    id BLOB PRIMARY KEY,
    account_id BLOB NOT NULL REFERENCES accounts (id),
    created_by_key BLOB,                     -- history only: nothing depends on it
    name TEXT,
    status TEXT NOT NULL,                    -- ingesting, queued, running, paused, cancelled, completed, failed
    pause_reason TEXT,                       -- insufficient_credits, requested
    header BLOB,                            -- first record of a submitted CSV
    delimiter SMALLINT NOT NULL,             -- of the submitted CSV
    submitted BIGINT NOT NULL,
    unique_addresses BIGINT NOT NULL,
    duplicates BIGINT NOT NULL,
    invalid_syntax BIGINT NOT NULL,
    batches BIGINT NOT NULL,
    batches_ended BIGINT NOT NULL,
    -- Sums over ended batches.
    deliverable BIGINT NOT NULL,
    undeliverable BIGINT NOT NULL,
    risky BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    charged BIGINT NOT NULL,
    refunded BIGINT NOT NULL,
    released BIGINT NOT NULL,                -- holds that the cancellation gave back
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    deleted_at BIGINT,                       -- results erased; the row stays for the books
    touched_at BIGINT NOT NULL               -- last sign of life while ingesting
);
CREATE INDEX tasks_by_account ON tasks (account_id, id);
CREATE INDEX tasks_active ON tasks (id) WHERE status IN ('queued', 'running');
CREATE INDEX tasks_paused ON tasks (id) WHERE status = 'paused';
CREATE INDEX tasks_ingesting ON tasks (touched_at) WHERE status = 'ingesting';

-- The slice of a task that one queue message points at.
CREATE TABLE batches (
    task_id BLOB NOT NULL REFERENCES tasks (id),
    no INTEGER NOT NULL,
    first_seq BIGINT NOT NULL,
    addresses INTEGER NOT NULL,
    chargeable INTEGER NOT NULL,
    state SMALLINT NOT NULL,                 -- 0 pending, 1 queued, 2 leased, 3 done, 4 cancelled
    touched SMALLINT NOT NULL,               -- 1 = leased before, and counters not folded into the task
    held BIGINT NOT NULL CHECK (held >= 0),  -- credits held by the lease
    lease_token BIGINT,                      -- the fence
    due_at BIGINT NOT NULL,                  -- when the sweeper looks at it: message lost, lease over
    attempt INTEGER NOT NULL,
    step BIGINT,                             -- the last settlement applied
    deliverable BIGINT NOT NULL,
    undeliverable BIGINT NOT NULL,
    risky BIGINT NOT NULL,
    unknown BIGINT NOT NULL,
    charged BIGINT NOT NULL,
    refunded BIGINT NOT NULL,
    payload BLOB NOT NULL,                  -- the addresses, compressed
    PRIMARY KEY (task_id, no)
);
CREATE INDEX batches_pending ON batches (task_id, no) WHERE state = 0;
CREATE INDEX batches_touched ON batches (task_id) WHERE touched = 1;
CREATE INDEX batches_open ON batches (task_id) WHERE state IN (1, 2);
CREATE INDEX batches_due ON batches (due_at) WHERE state IN (1, 2);

-- The submitted file, row by row, compressed: what a download gives back.
CREATE TABLE task_rows (
    task_id BLOB NOT NULL REFERENCES tasks (id),
    no INTEGER NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (task_id, no)
);

-- One row per unique address, written once.
CREATE TABLE results (
    task_id BLOB NOT NULL,
    seq BIGINT NOT NULL,
    address TEXT NOT NULL,
    reason SMALLINT NOT NULL,                -- gives the status
    score SMALLINT NOT NULL,
    flags SMALLINT NOT NULL,                 -- two bits a flag
    credit SMALLINT NOT NULL,                -- 1 charged, 2 refunded, 3 free
    attempts SMALLINT NOT NULL,
    step BIGINT NOT NULL,                    -- the settlement whose entries moved its credit
    checked_at BIGINT NOT NULL,
    smtp_code SMALLINT,
    mx TEXT,
    did_you_mean TEXT,
    detail TEXT,                             -- what the verdict rests on, as JSON
    PRIMARY KEY (task_id, seq)
) WITHOUT ROWID;

-- Single verifications: a hold each, resolved once.
CREATE TABLE checks (
    id BLOB PRIMARY KEY,
    account_id BLOB NOT NULL REFERENCES accounts (id),
    step BIGINT NOT NULL,
    held SMALLINT NOT NULL,                  -- 1 while held
    charged SMALLINT NOT NULL,               -- 1 when it cost a credit
    due_at BIGINT NOT NULL,                  -- given back by the sweeper after this
    created_at BIGINT NOT NULL
);
CREATE INDEX checks_held ON checks (due_at) WHERE held = 1;
CREATE INDEX checks_charged ON checks (account_id) WHERE charged = 1;

CREATE TABLE idempotency_keys (
    account_id BLOB NOT NULL REFERENCES accounts (id),
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BLOB NOT NULL,              -- SHA-256 of the request
    salt BLOB NOT NULL,                     -- lets a new key's secret be told again without being stored
    status SMALLINT,                         -- none = the first request is still at work
    body TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, route, key)
);
CREATE INDEX idempotency_by_age ON idempotency_keys (created_at);

-- Worker processes seen lately; their concurrency sizes the dispatch window.
CREATE TABLE workers (
    name TEXT PRIMARY KEY,
    concurrency BIGINT NOT NULL,
    seen_at BIGINT NOT NULL
);
