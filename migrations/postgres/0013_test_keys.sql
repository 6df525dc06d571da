-- Sandbox tasks: what a test key submits. The sandbox verifies it, and it never touches a credit: its batches
-- have `chargeable` = 0, and each of its results is free.

ALTER TABLE tasks
    ADD COLUMN sandbox BOOLEAN NOT NULL DEFAULT FALSE;    -- set when its submission begins, and never changed

-- They wait apart from the others, so that they are in nobody's way. The marks of the others stay as they are:
-- programs of an older schema go on with them.
ALTER TABLE ready_tasks ADD COLUMN sandbox BOOLEAN NOT NULL DEFAULT FALSE;
DROP INDEX ready_tasks_by_turn;
CREATE INDEX ready_tasks_by_turn ON ready_tasks (account_id, sandbox, turn);

-- Accounts with at least one sandbox task that may have pending batches; as `ready_accounts`.
CREATE TABLE ready_sandbox (
    account_id UUID PRIMARY KEY,
    turn BIGINT NOT NULL,                    -- when it was last served, or began to wait
    stamp BIGINT NOT NULL                    -- raised whenever something new waits
);
CREATE INDEX ready_sandbox_by_turn ON ready_sandbox (turn);
ALTER TABLE ready_sandbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
