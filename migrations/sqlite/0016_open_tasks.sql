-- What the live stream of an account asks twice a second: its tasks that have not ended, those that have ended
-- lately, and those that were erased lately.

CREATE INDEX tasks_open ON tasks (account_id, id) WHERE status IN ('queued', 'running', 'paused');
CREATE INDEX tasks_ended ON tasks (account_id, finished_at, id) WHERE finished_at IS NOT NULL;
CREATE INDEX tasks_erased ON tasks (account_id, deleted_at, id) WHERE deleted_at IS NOT NULL;

ALTER TABLE tasks ADD COLUMN created_by_person TEXT;  -- the person's email; history only, as created_by_key
