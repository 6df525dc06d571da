-- What the page of keys asks of the tasks of its keys: how many go on, and what those have charged.

CREATE INDEX tasks_live_by_key ON tasks (created_by_key, id)
    WHERE deleted_at IS NULL AND status IN ('queued', 'running', 'paused');
CREATE INDEX tasks_uncounted_by_key ON tasks (created_by_key) WHERE deleted_at IS NULL AND key_reserved IS NOT NULL;
