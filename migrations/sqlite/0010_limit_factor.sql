-- The lever against overload: every request limit is multiplied by this until it ends. One row, always
-- there, read by the gate with every request.

CREATE TABLE limit_factor (
    -- 1: there is no second row.
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    -- Thousandths of each limit that are left.
    thousandths BIGINT NOT NULL CHECK (thousandths BETWEEN 1 AND 1000),
    -- When it ends by itself; from then on limits are whole.
    ends_at BIGINT NOT NULL,
    -- When it was set or lifted last; 0 = never.
    set_at BIGINT NOT NULL,
    -- Why, for other operators.
    note TEXT
);
INSERT INTO limit_factor (id, thousandths, ends_at, set_at) VALUES (1, 1000, 0, 0);
