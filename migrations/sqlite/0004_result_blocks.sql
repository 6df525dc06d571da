-- Results in blocks: a row per settled piece of a batch, its verdicts packed. Once everything is stored
-- so, `listmill migrate` drops the table `results`, which has a row per address.

CREATE TABLE result_blocks (
    task_id BLOB NOT NULL,
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
    payload BLOB NOT NULL,                   -- the verdicts; their addresses are in the batch
    PRIMARY KEY (task_id, first_seq, step)
);

-- Bit i: the address at place i has its result.
ALTER TABLE batches ADD COLUMN done BLOB NOT NULL DEFAULT x'';

CREATE INDEX ledger_by_task ON ledger_entries (task_id, id) WHERE task_id IS NOT NULL;
