-- What happened to tasks between their beginning and their end, which stand in `tasks`. Rows are only added; where
-- a task has many of one kind, the last of them stands for all further ones (`times`, `last_at`).

CREATE TABLE task_events (
    task_id BLOB NOT NULL,
    no INTEGER NOT NULL,                     -- in the order in which they happened, from 0
    kind TEXT NOT NULL,                      -- paused, resumed, worker_lost, cancelled
    at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    times BIGINT NOT NULL,
    batches BIGINT NOT NULL,                 -- worker_lost: batches that went back to work
    who TEXT,                                -- an actor, as in the audit log
    reason TEXT,                             -- paused: why; resumed: what is over
    detail TEXT,                             -- for people
    PRIMARY KEY (task_id, no)
);

-- The flags that a result of the block has, a bit for each; none: written before these were counted.
ALTER TABLE result_blocks ADD COLUMN flags SMALLINT;

-- Ended tasks whose time is over.
CREATE INDEX tasks_by_end ON tasks (finished_at, id) WHERE finished_at IS NOT NULL AND deleted_at IS NULL;
