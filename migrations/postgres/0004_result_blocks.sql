-- Results in blocks: a row per settled piece of a batch, its verdicts packed. Once everything is stored
-- so, `listmill migrate` drops the table `results`, which has a row per address.

CREATE TABLE result_blocks (
    task_id UUID NOT NULL,
    first_seq BIGINT NOT NULL,               -- of the batch
    step BIGINT NOT NULL,                    -- the settlement; of a merged block, the last one
    no INTEGER NOT NULL,                     -- the batch
    deliverable INTEGER NOT NULL,
    undeliverable INTEGER NOT NULL,
    risky INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    refunded INTEGER NOT NULL,
    reasons BIGINT NOT NULL,                 -- bit n: a result has the reason with code n
    payload BYTEA NOT NULL,                  -- the verdicts; their addresses are in the batch
    PRIMARY KEY (task_id, first_seq, step)
);
ALTER TABLE result_blocks ALTER COLUMN payload SET STORAGE EXTERNAL;

-- Bit i: the address at place i has its result.
ALTER TABLE batches ADD COLUMN done BYTEA NOT NULL DEFAULT '';

CREATE INDEX ledger_by_task ON ledger_entries (task_id, id) WHERE task_id IS NOT NULL;

-- Rows that are updated in place, again and again: cleaned up by what has changed, not by a share of what
-- is there.
ALTER TABLE batches SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000);
ALTER TABLE tasks SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, fillfactor = 80);
ALTER TABLE credit_balances SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, fillfactor = 50);
ALTER TABLE ready_tasks SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
ALTER TABLE ready_accounts SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
ALTER TABLE workers SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
ALTER TABLE deferrals SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000);
