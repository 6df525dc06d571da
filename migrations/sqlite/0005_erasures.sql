-- What erased tasks, and submissions that came to nothing, hold is removed in slices. A row here = not
-- all of it is gone yet.

CREATE TABLE erasures (
    task_id BLOB PRIMARY KEY
);
