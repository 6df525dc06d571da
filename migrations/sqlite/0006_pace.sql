-- What each worker has started in a second lately: how much may be out depends on it.
ALTER TABLE workers ADD COLUMN pace BIGINT NOT NULL DEFAULT 0;
