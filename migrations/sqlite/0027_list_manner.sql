-- How a submitted list was written, so that its results come back in the same way: with a byte order mark in front,
-- and with CR and LF, or LF alone, at the ends of its lines.

ALTER TABLE tasks ADD COLUMN bom BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE tasks ADD COLUMN crlf BOOLEAN NOT NULL DEFAULT TRUE;
