-- name: outbox_push
-- rows: none
-- params: kind text, tenant_id text, customer_id text, subject text
INSERT INTO outbox (kind, tenant_id, customer_id, subject) VALUES ($1, $2, $3, $4);

-- name: outbox_push_snapshots
-- rows: none
-- params: tenant_id text
-- In their turn, behind what is told of single customers: those are pushed with no turn at all.
INSERT INTO outbox (kind, tenant_id, customer_id, retry_at)
SELECT 'snapshot', tenant_id, customer_id, clock_timestamp() FROM customer WHERE tenant_id = $1 ORDER BY customer_id;

-- name: outbox_take
-- rows: many
-- params: most integer
SELECT outbox_id, kind, tenant_id, customer_id, subject
FROM outbox
WHERE retry_at <= clock_timestamp()
ORDER BY retry_at, outbox_id
LIMIT $1
FOR UPDATE SKIP LOCKED;

-- name: outbox_take_of_customer
-- rows: many
-- params: tenant_id text, customer_id text
-- What a relay has taken is waited for: where it was told meanwhile, it is not here any more.
SELECT outbox_id, kind, tenant_id, customer_id, subject
FROM outbox
WHERE tenant_id = $1 AND customer_id = $2
ORDER BY outbox_id
FOR UPDATE;

-- name: patience
-- rows: one
-- params: lock_timeout text
-- How long this transaction waits for a lock.
SELECT set_config('lock_timeout', $1, true) AS lock_timeout;

-- name: outbox_delete
-- rows: none
-- params: outbox_ids bigint[]
DELETE FROM outbox WHERE outbox_id = ANY ($1);

-- name: outbox_postpone
-- rows: none
-- params: outbox_ids bigint[], delay_ms bigint
UPDATE outbox SET retry_at = clock_timestamp() + $2 * interval '1 millisecond' WHERE outbox_id = ANY ($1);

-- name: outbox_waiting
-- rows: one
-- params: tenant_id text
SELECT count(*) AS waiting FROM outbox WHERE tenant_id = $1;
