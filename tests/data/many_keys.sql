-- 1,000,000 keys of 1,000 accounts and 10,000,000 rows of the request log, to measure beside (docs/BENCHMARKS.md).
SET synchronous_commit = off;
INSERT INTO accounts (id, email, created_at)
SELECT ('01980000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'many' || n || '@example.com', 1764000000000
FROM generate_series(1, 1000) n;
INSERT INTO api_keys (id, account_id, hash, pepper, start, label, disabled, created_at, family, budget)
SELECT id, ('01980000-0000-7000-8000-' || lpad(to_hex(1 + n % 1000), 12, '0'))::uuid, sha256(id::text::bytea),
       'p', 'VECabcde', 'many', false, 1764000000000, id, id
FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 1000000) n) one;
INSERT INTO request_log (id, account_id, key_id, at, outcome, ip, method, route, status, latency_us, request_id)
SELECT (1764000000000 + n) << 22, ('01980000-0000-7000-8000-' || lpad(to_hex(1 + n % 1000), 12, '0'))::uuid,
       ('01980000-0000-7000-9000-' || lpad(to_hex(n % 100000), 12, '0'))::uuid, 1764000000000 + n,
       CASE WHEN n % 50 = 0 THEN 8 ELSE 0 END, '192.0.2.' || n % 250, 'GET', '/v1/tasks', 200, 900, 'req_' || n
FROM generate_series(1, 10000000) n;
ANALYZE;
