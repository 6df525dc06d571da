-- Links that show a new key's secret once, and rotations that are planned for later.

CREATE TABLE key_links (
    token_hash BYTEA PRIMARY KEY,            -- SHA-256 of the link's token; the secret follows from token and pepper
    key_id UUID NOT NULL,
    ends_at BIGINT NOT NULL,
    used_at BIGINT                           -- set = it has shown its key
);
CREATE INDEX key_links_by_end ON key_links (ends_at);

CREATE TABLE key_rotations (
    new_key UUID PRIMARY KEY,
    old_key UUID NOT NULL UNIQUE,
    ends_at BIGINT NOT NULL,                 -- the end that the plan gave the old key
    former_end BIGINT                        -- the end that it had before; none = never
);
