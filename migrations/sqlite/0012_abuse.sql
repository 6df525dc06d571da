-- Abuse protection: what is counted, what was found, and blocks that end by themselves.

ALTER TABLE ip_blocks ADD COLUMN ends_at BIGINT; -- from then on it blocks nobody; none = until it is lifted
ALTER TABLE ip_blocks ADD COLUMN made_by TEXT NOT NULL DEFAULT 'operator'; -- an actor, or `rule:NAME`

-- What a rule counts, by the minute. Removed when it is older than any rule looks back.
CREATE TABLE abuse_counts (
    rule SMALLINT NOT NULL,                  -- see domain/abuse.rs
    subject TEXT NOT NULL,                   -- a key's id, or a network
    minute BIGINT NOT NULL,                  -- when the minute begins
    item BIGINT NOT NULL,                    -- tells apart what is counted once: presented keys; else 0
    requests BIGINT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (rule, subject, minute, item)
) WITHOUT ROWID;
CREATE INDEX abuse_counts_by_age ON abuse_counts (minute);

-- How often a rule has acted on a subject, and until when it did. Forgotten after 30 quiet days.
CREATE TABLE abuse_strikes (
    rule SMALLINT NOT NULL,
    subject TEXT NOT NULL,
    strikes INTEGER NOT NULL,
    ends_at BIGINT NOT NULL,                 -- of what was done last
    dry BOOLEAN NOT NULL,                    -- nothing was done: it was a dry run
    PRIMARY KEY (rule, subject)
) WITHOUT ROWID;
CREATE INDEX abuse_strikes_by_age ON abuse_strikes (ends_at);

-- What the rules have found. Rows are never changed; they are removed by age and number.
CREATE TABLE abuse_signals (
    id INTEGER PRIMARY KEY,                  -- ordered by time
    at BIGINT NOT NULL,
    rule SMALLINT NOT NULL,
    subject TEXT NOT NULL,
    account_id BLOB,                         -- whose key it is; none for networks
    counted BIGINT NOT NULL,                 -- what the threshold is compared with
    strikes INTEGER NOT NULL,
    action TEXT NOT NULL,                    -- suspended, blocked, dry_run or spared
    ends_at BIGINT NOT NULL,                 -- of the action, or of what it would have been
    detail TEXT NOT NULL                     -- JSON, for people
);
CREATE INDEX abuse_signals_by_subject ON abuse_signals (subject, id);

-- The networks (/24, or /64 of IPv6) that a key is used from: up to about 1,000, those used last.
CREATE TABLE key_networks (
    key_id BLOB NOT NULL,
    network TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    requests BIGINT NOT NULL,
    hour BIGINT NOT NULL,                    -- the hour of the last use
    accepted BIGINT NOT NULL,                -- of those of that hour, accepted
    accepted_before BIGINT NOT NULL,         -- likewise, of the hour before it
    standing SMALLINT NOT NULL,              -- 0 known by its age, 1 part of a signal, 2 known by an operator's word
    PRIMARY KEY (key_id, network)
) WITHOUT ROWID;
CREATE INDEX key_networks_by_first ON key_networks (key_id, first_at, network);
CREATE INDEX key_networks_by_network ON key_networks (network);
-- By the hour, which most uses leave as it is.
CREATE INDEX key_networks_by_age ON key_networks (hour);
