-- Addresses whose mail server said "later". A batch with nothing else left to do waits (state 5)
-- until the earliest of them is due, holding no credit, no lease and no place in the window.

ALTER TABLE batches ADD COLUMN source TEXT;  -- where the last lease's worker sends from

CREATE TABLE deferrals (
    task_id BLOB NOT NULL,
    no INTEGER NOT NULL,                     -- the batch
    seq BIGINT NOT NULL,
    attempts SMALLINT NOT NULL,              -- so far
    due_at BIGINT NOT NULL,                  -- not to be asked again before
    PRIMARY KEY (task_id, no, seq)
);
CREATE INDEX batches_waiting ON batches (due_at) WHERE state = 5;
CREATE INDEX batches_waiting_of_task ON batches (task_id, no) WHERE state = 5;
