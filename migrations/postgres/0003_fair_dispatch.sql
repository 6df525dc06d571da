-- Fair dispatch: who has batches that wait to be sent, in the order in which they were last served.

-- Accounts with at least one such task.
CREATE TABLE ready_accounts (
    account_id UUID PRIMARY KEY,
    turn BIGINT NOT NULL,                    -- when it was last served, or began to wait
    stamp BIGINT NOT NULL                    -- raised whenever something new waits
);
CREATE INDEX ready_accounts_by_turn ON ready_accounts (turn);

-- Active tasks that may have pending batches.
CREATE TABLE ready_tasks (
    task_id UUID PRIMARY KEY,
    account_id UUID NOT NULL,
    turn BIGINT NOT NULL,
    stamp BIGINT NOT NULL
);
CREATE INDEX ready_tasks_by_turn ON ready_tasks (account_id, turn);

INSERT INTO ready_tasks (task_id, account_id, turn, stamp)
    SELECT t.id, t.account_id, t.created_at, 0 FROM tasks t
    WHERE t.status IN ('queued', 'running')
      AND EXISTS (SELECT 1 FROM batches b WHERE b.task_id = t.id AND b.state = 0);
INSERT INTO ready_accounts (account_id, turn, stamp)
    SELECT account_id, min(turn), 0 FROM ready_tasks GROUP BY account_id;

-- Its share of what is out, against the other accounts'.
ALTER TABLE accounts ADD COLUMN weight INTEGER NOT NULL DEFAULT 1 CHECK (weight > 0);

-- What the end of a batch's last lease gave back; leases in a row that ended without a word.
ALTER TABLE batches ADD COLUMN freed BIGINT NOT NULL DEFAULT 0 CHECK (freed >= 0);
ALTER TABLE batches ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;

-- True while tasks of the account are paused for want of these credits.
ALTER TABLE credit_balances ADD COLUMN broke BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE credit_balances SET broke = TRUE WHERE kind = 'email' AND account_id IN (
    SELECT account_id FROM tasks WHERE status = 'paused' AND pause_reason = 'insufficient_credits');
CREATE INDEX credit_balances_broke ON credit_balances (account_id) WHERE broke;

DROP INDEX tasks_paused;
CREATE INDEX tasks_paused ON tasks (pause_reason, account_id, id) WHERE status = 'paused';
