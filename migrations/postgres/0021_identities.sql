-- Logging in by OpenID Connect: who an issuer says that a person is, and log-ins that are under way there.

CREATE TABLE person_identities (
    issuer TEXT NOT NULL,                    -- as it names itself
    subject TEXT NOT NULL,                   -- the person, as the issuer names them
    person_id UUID NOT NULL REFERENCES people (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject),
    UNIQUE (person_id, issuer)               -- an email that the issuer gives to somebody else leads nowhere
);

CREATE TABLE issuer_logins (
    token_hash BYTEA PRIMARY KEY,            -- SHA-256 of the token in the browser's cookie
    next TEXT NOT NULL,                      -- the page to go on with
    person_id UUID REFERENCES people (id),   -- set: the issuer has said who, and a one-time code is missing
    issuer TEXT,                             -- with person_id
    subject TEXT,                            -- with person_id
    ends_at BIGINT NOT NULL
);
CREATE INDEX issuer_logins_by_end ON issuer_logins (ends_at);
