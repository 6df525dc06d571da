-- People: who logs in. An account has several, each with a role; a person may belong to several accounts.

CREATE TABLE people (
    id BLOB PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,              -- in lower case
    password_hash TEXT,                      -- Argon2id; none = cannot log in by password
    operator BOOLEAN NOT NULL,
    code_salt BLOB,                         -- the secret of one-time codes follows from it and the pepper
    code_on BOOLEAN NOT NULL DEFAULT FALSE,  -- set once a first code was shown
    code_step BIGINT NOT NULL DEFAULT 0,     -- the last code's: each is of use once
    created_at BIGINT NOT NULL
);

CREATE TABLE memberships (
    account_id BLOB NOT NULL REFERENCES accounts (id),
    person_id BLOB NOT NULL REFERENCES people (id),
    role TEXT NOT NULL,                      -- owner, member, viewer
    created_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, person_id)
);
CREATE INDEX memberships_by_person ON memberships (person_id, created_at);

-- Who is logged in. The token stands in the browser's cookie alone.
CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,            -- SHA-256 of the token
    id BLOB NOT NULL UNIQUE,
    person_id BLOB NOT NULL REFERENCES people (id),
    account_id BLOB NOT NULL,                -- the one that is looked at
    proven_at BIGINT NOT NULL,               -- when the password was given last
    created_at BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    ends_at BIGINT NOT NULL,
    ip TEXT,
    agent TEXT
);
CREATE INDEX sessions_by_person ON sessions (person_id, created_at);
CREATE INDEX sessions_by_end ON sessions (ends_at);

-- What stands in for a code when the device is lost; each once.
CREATE TABLE recovery_codes (
    person_id BLOB NOT NULL REFERENCES people (id),
    hash BLOB NOT NULL,                     -- SHA-256 of the code
    PRIMARY KEY (person_id, hash)
);

-- Links that log a person in once, let them set a password, or take them into an account.
CREATE TABLE person_links (
    token_hash BLOB PRIMARY KEY,            -- SHA-256 of the link's token
    kind TEXT NOT NULL,                      -- login, password, invite
    email TEXT NOT NULL,
    account_id BLOB,                         -- invite: to which account
    role TEXT,                               -- invite: as what
    ends_at BIGINT NOT NULL
);
CREATE INDEX person_links_by_end ON person_links (ends_at);
CREATE INDEX person_links_by_account ON person_links (account_id, email) WHERE account_id IS NOT NULL;

-- Whoever had an account is its owner.
INSERT INTO people (id, email, password_hash, operator, created_at)
    SELECT id, lower(email), password_hash, is_admin, created_at FROM accounts WHERE TRUE ORDER BY id
    ON CONFLICT DO NOTHING;
INSERT INTO memberships (account_id, person_id, role, created_at)
    SELECT a.id, p.id, 'owner', a.created_at FROM accounts a JOIN people p ON p.email = lower(a.email);
