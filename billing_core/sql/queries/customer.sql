-- name: customer_insert
-- rows: one
-- params: tenant_id text, customer_id text, name text, time_zone text, collection text, payment_terms_days integer, stripe_customer text, stripe_payment_method text, shard integer, now timestamptz
INSERT INTO customer (tenant_id, customer_id, name, time_zone, collection, payment_terms_days, stripe_customer,
                      stripe_payment_method, shard, created_at)
SELECT t.tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, $10::timestamptz + t.clock_offset_ms * interval '1 millisecond'
FROM tenant t WHERE t.tenant_id = $1
RETURNING customer_id, name, time_zone, status, collection, payment_terms_days, stripe_customer,
          stripe_payment_method, created_at;

-- name: customer_by_id
-- rows: maybe
-- params: tenant_id text, customer_id text
SELECT customer_id, name, time_zone, status, collection, payment_terms_days, stripe_customer,
       stripe_payment_method, created_at
FROM customer WHERE tenant_id = $1 AND customer_id = $2;

-- name: customers_after
-- rows: many
-- params: tenant_id text, customer_id text, count integer
SELECT customer_id, name, time_zone, status, collection, payment_terms_days, stripe_customer,
       stripe_payment_method, created_at
FROM customer WHERE tenant_id = $1 AND customer_id > $2 ORDER BY customer_id LIMIT $3;

-- name: customer_set_status
-- rows: maybe
-- params: tenant_id text, customer_id text, status text
UPDATE customer SET status = $3 WHERE tenant_id = $1 AND customer_id = $2
RETURNING customer_id, name, time_zone, status, collection, payment_terms_days, stripe_customer,
          stripe_payment_method, created_at;

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
