-- Accounts are found by their email in any case: it is kept in lower case, as people's are. Two accounts whose emails
-- differ in nothing else keep them as they are.
UPDATE accounts AS a SET email = lower(a.email)
    WHERE a.email <> lower(a.email)
      AND NOT EXISTS (SELECT 1 FROM accounts b WHERE lower(b.email) = lower(a.email) AND b.id <> a.id);

-- Bookings that were given a name from outside, such as an invoice's number: each is made once.
CREATE TABLE booking_references (
    account_id BLOB NOT NULL REFERENCES accounts (id),
    reference TEXT NOT NULL,
    kind TEXT NOT NULL,                      -- email, phone
    amount BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    booked_at BIGINT NOT NULL,
    PRIMARY KEY (account_id, reference)
) WITHOUT ROWID;
