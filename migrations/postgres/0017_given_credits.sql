-- What an account was given is summed without reading what was held, charged and returned since.
CREATE INDEX ledger_given ON ledger_entries (account_id, id) WHERE type IN ('grant', 'adjust');
