-- What operators look at: what workers say of themselves, what they have verified by the hour, and indexes for
-- looking things up whosever they are.

ALTER TABLE workers ADD COLUMN version TEXT NOT NULL DEFAULT '';         -- of its program; empty = from before it was told
ALTER TABLE workers ADD COLUMN source TEXT NOT NULL DEFAULT '';          -- where it sends from
ALTER TABLE workers ADD COLUMN started_at BIGINT NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN leases BIGINT NOT NULL DEFAULT 0;         -- batches in hand
ALTER TABLE workers ADD COLUMN clock_offset BIGINT NOT NULL DEFAULT 0;   -- milliseconds that its machine's clock is behind

-- A row per worker, so that none waits for another. Counted by workers as they settle: a little is lost with one
-- that is killed.
CREATE TABLE verified_hours (
    at BIGINT NOT NULL,                      -- when the hour begins
    worker TEXT NOT NULL,
    addresses BIGINT NOT NULL,
    PRIMARY KEY (at, worker)
) WITHOUT ROWID;

CREATE INDEX api_keys_by_start ON api_keys (start, id);
CREATE INDEX api_keys_by_label ON api_keys (label, id);
CREATE INDEX api_keys_given_to ON api_keys (external_id, id) WHERE external_id IS NOT NULL;

CREATE INDEX tasks_failed ON tasks (id) WHERE status = 'failed';
-- 34359738368: the bit of `internal_error`.
CREATE INDEX result_blocks_failed ON result_blocks (task_id, first_seq) WHERE (reasons & 34359738368) <> 0;
CREATE INDEX usage_hours_refused ON usage_hours (at, outcome) WHERE outcome <> 0;
