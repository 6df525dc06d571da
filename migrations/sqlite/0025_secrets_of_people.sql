-- A person's password and whether they are an operator stand with the person alone (0015): a password that was
-- changed since must not live on in a second place.

ALTER TABLE accounts DROP COLUMN password_hash;
ALTER TABLE accounts DROP COLUMN is_admin;
