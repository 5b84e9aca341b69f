-- name: customer_insert
-- rows: one
-- params: tenant_id text, customer_id text, name text, time_zone text, collection text, payment_terms_days integer, stripe_customer text, stripe_payment_method text, shard integer, now timestamptz
INSERT INTO customer (tenant_id, customer_id, name, time_zone, collection, payment_terms_days, stripe_customer,
                      stripe_payment_method, shard, created_at)
SELECT t.tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, $10::timestamptz + t.clock_offset_ms * interval '1 millisecond'
FROM tenant t WHERE t.tenant_id = $1
RETURNING customer_id, name, time_zone, status, operator_suspended_at, dunning_suspended_at, collection,
          payment_terms_days, stripe_customer, stripe_payment_method, created_at;

-- name: customer_by_id
-- rows: maybe
-- params: tenant_id text, customer_id text
SELECT customer_id, name, time_zone, status, operator_suspended_at, dunning_suspended_at, collection,
       payment_terms_days, stripe_customer, stripe_payment_method, created_at
FROM customer WHERE tenant_id = $1 AND customer_id = $2;

-- name: customers_after
-- rows: many
-- params: tenant_id text, customer_id text, count integer
SELECT customer_id, name, time_zone, status, operator_suspended_at, dunning_suspended_at, collection,
       payment_terms_days, stripe_customer, stripe_payment_method, created_at
FROM customer WHERE tenant_id = $1 AND customer_id > $2 ORDER BY customer_id LIMIT $3;

-- name: customer_suspend_by_operator
-- rows: maybe
-- params: tenant_id text, customer_id text, now timestamptz
-- Twice is once: the first instant stays.
UPDATE customer c
SET operator_suspended_at = coalesce(c.operator_suspended_at, $3::timestamptz + t.clock_offset_ms * interval '1 millisecond')
FROM tenant t WHERE t.tenant_id = $1 AND c.tenant_id = $1 AND c.customer_id = $2
RETURNING c.customer_id, c.name, c.time_zone, c.status, c.operator_suspended_at, c.dunning_suspended_at, c.collection,
    c.payment_terms_days, c.stripe_customer, c.stripe_payment_method, c.created_at;

-- name: customer_resume_by_operator
-- rows: maybe
-- params: tenant_id text, customer_id text
UPDATE customer SET operator_suspended_at = NULL WHERE tenant_id = $1 AND customer_id = $2
RETURNING customer_id, name, time_zone, status, operator_suspended_at, dunning_suspended_at, collection, payment_terms_days,
    stripe_customer, stripe_payment_method, created_at;

-- name: customer_locked
-- rows: maybe
-- params: tenant_id text, customer_id text
-- Whoever suspends or lifts locks first and looks after, so that it sees all that was committed before.
SELECT c.tenant_id, c.customer_id, t.clock_offset_ms, c.dunning_suspended_at IS NOT NULL AS is_dunned
FROM customer c JOIN tenant t USING (tenant_id)
WHERE c.tenant_id = $1 AND c.customer_id = $2 FOR NO KEY UPDATE OF c;

-- name: customers_overdue_locked
-- rows: many
-- params: now timestamptz, overdue_days integer, most integer
-- Who is served although an invoice is unpaid so many days after it was due.
WITH overdue AS MATERIALIZED (
    SELECT DISTINCT i.tenant_id, i.customer_id, t.clock_offset_ms
    FROM tenant t JOIN invoice i ON i.tenant_id = t.tenant_id AND i.state = 'finalized'
        AND i.due_at <= $1::timestamptz + t.clock_offset_ms * interval '1 millisecond' - $2::integer * interval '1 day'
)
SELECT c.tenant_id, c.customer_id, o.clock_offset_ms, false AS is_dunned
FROM overdue o JOIN customer c USING (tenant_id, customer_id)
WHERE c.dunning_suspended_at IS NULL
ORDER BY c.tenant_id, c.customer_id LIMIT $3
FOR NO KEY UPDATE OF c SKIP LOCKED;

-- name: customers_dun
-- rows: many
-- params: tenant_ids text[], customer_ids text[], now timestamptz, overdue_days integer
-- Of these, which are locked, those that are overdue still.
UPDATE customer c SET dunning_suspended_at = $3::timestamptz + t.clock_offset_ms * interval '1 millisecond'
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, customer_id) JOIN tenant t USING (tenant_id)
WHERE c.tenant_id = asked.tenant_id AND c.customer_id = asked.customer_id AND c.dunning_suspended_at IS NULL AND EXISTS (
    SELECT FROM invoice i
    WHERE i.customer_id = c.customer_id AND i.tenant_id = c.tenant_id AND i.state = 'finalized'
        AND i.due_at <= $3::timestamptz + t.clock_offset_ms * interval '1 millisecond' - $4::integer * interval '1 day')
RETURNING c.tenant_id, c.customer_id;

-- name: customer_set_dunned
-- rows: none
-- params: tenant_id text, customer_id text, since timestamptz
UPDATE customer SET dunning_suspended_at = $3 WHERE tenant_id = $1 AND customer_id = $2;

-- name: customer_arrears
-- rows: one
-- params: tenant_id text, customer_id text, at timestamptz
-- Invoices that are unpaid after they were due, or that nobody collects any more.
SELECT count(*) AS count FROM invoice i
WHERE i.tenant_id = $1 AND i.customer_id = $2 AND i.state = 'finalized' AND (
    i.due_at <= $3
    OR (EXISTS (SELECT FROM payment p WHERE p.tenant_id = $1 AND p.invoice_id = i.invoice_id AND p.state = 'failed')
        AND NOT EXISTS (SELECT FROM payment p WHERE p.tenant_id = $1 AND p.invoice_id = i.invoice_id
                        AND p.state IN ('pending', 'processing'))));

-- name: api_key_insert
-- rows: one
-- params: digest text, key_id text, tenant_id text, customer_id text, label text, hint text, path text[], now timestamptz
INSERT INTO api_key (digest, key_id, tenant_id, customer_id, label, hint, path, created_at)
SELECT $1, $2, t.tenant_id, $4, $5, $6, $7, $8::timestamptz + t.clock_offset_ms * interval '1 millisecond'
FROM tenant t WHERE t.tenant_id = $3
RETURNING key_id, customer_id, digest, label, hint, path, created_at, revoked_at;

-- name: api_keys_after
-- rows: many
-- params: tenant_id text, customer_id text, key_id text, count integer
SELECT key_id, customer_id, digest, label, hint, path, created_at, revoked_at FROM api_key
WHERE tenant_id = $1 AND customer_id = $2 AND key_id > $3 ORDER BY key_id LIMIT $4;

-- name: api_key_revoke
-- rows: maybe
-- params: tenant_id text, customer_id text, key_id text, now timestamptz
UPDATE api_key k SET revoked_at = coalesce(k.revoked_at, $4::timestamptz + t.clock_offset_ms * interval '1 millisecond')
FROM tenant t WHERE t.tenant_id = $1 AND k.tenant_id = $1 AND k.customer_id = $2 AND k.key_id = $3
RETURNING k.key_id, k.customer_id, k.digest, k.label, k.hint, k.path, k.created_at, k.revoked_at;
