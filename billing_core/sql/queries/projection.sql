-- What the relay reads to tell Redis. Rows are locked before they are read: of two relays with one subject the second
-- waits, and then reads what is true after the first; so what is told last is what is true.

-- name: snapshot_versions
-- rows: many
-- params: tenant_ids text[], customer_ids text[]
WITH asked AS (
    SELECT * FROM unnest($1::text[], $2::text[]) AS a (tenant_id, customer_id)
), held AS (
    SELECT c.tenant_id, c.customer_id
    FROM customer c JOIN asked USING (tenant_id, customer_id)
    ORDER BY c.tenant_id, c.customer_id
    FOR NO KEY UPDATE OF c
)
UPDATE customer c SET snapshot_version = nextval('snapshot_version')
FROM held WHERE c.tenant_id = held.tenant_id AND c.customer_id = held.customer_id
RETURNING c.tenant_id, c.customer_id, c.snapshot_version AS version;

-- name: snapshot_facts
-- rows: many
-- params: tenant_ids text[], customer_ids text[]
SELECT c.tenant_id, c.customer_id, c.shard, c.snapshot_version AS version, c.status, t.clock_offset_ms,
       c.time_zone AS customer_zone, c.created_at AS customer_since, s.subscription_id, s.plan_code, s.plan_version,
       s.anchor_at, s.started_at, s.time_zone, s.changed_at, s.next_plan_code, s.next_plan_version, s.next_anchor_at, s.next_at,
       s.ends_at
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, customer_id)
JOIN customer c USING (tenant_id, customer_id)
JOIN tenant t USING (tenant_id)
LEFT JOIN LATERAL (
    SELECT a.*, CASE WHEN a.cancel_at_end THEN (
        SELECT max(p.end_at) FROM billing_period p
        WHERE p.tenant_id = a.tenant_id AND p.subscription_id = a.subscription_id AND p.state = 'open') END AS ends_at
    FROM subscription a WHERE a.tenant_id = c.tenant_id AND a.customer_id = c.customer_id AND a.state = 'active' LIMIT 1
) AS s ON true
ORDER BY c.tenant_id, c.customer_id;

-- name: snapshot_stale_at
-- rows: none
-- params: tenant_ids text[], customer_ids text[], stale_ats timestamptz[]
UPDATE customer c SET snapshot_stale_at = told.stale_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS told (tenant_id, customer_id, stale_at)
WHERE c.tenant_id = told.tenant_id AND c.customer_id = told.customer_id
  AND c.snapshot_stale_at IS DISTINCT FROM told.stale_at;

-- name: snapshots_going_stale
-- rows: none
-- params: now timestamptz, most integer
WITH stale AS (
    SELECT c.tenant_id, c.customer_id
    FROM customer c JOIN tenant t USING (tenant_id)
    WHERE c.snapshot_stale_at <= $1::timestamptz + t.clock_offset_ms * interval '1 millisecond'
    ORDER BY c.tenant_id, c.customer_id
    LIMIT $2
    FOR NO KEY UPDATE OF c SKIP LOCKED
), told AS (
    UPDATE customer c SET snapshot_stale_at = NULL
    FROM stale WHERE c.tenant_id = stale.tenant_id AND c.customer_id = stale.customer_id
    RETURNING c.tenant_id, c.customer_id
)
INSERT INTO outbox (kind, tenant_id, customer_id) SELECT 'snapshot', tenant_id, customer_id FROM told;

-- name: plan_terms
-- rows: many
-- params: tenant_ids text[], codes text[], versions integer[]
SELECT p.tenant_id, p.code, p.version, p.document AS terms
FROM unnest($1::text[], $2::text[], $3::integer[]) AS asked (tenant_id, code, version) JOIN plan_version p USING (tenant_id, code, version);

-- name: credentials_locked
-- rows: many
-- params: digests text[]
WITH caller AS (
    SELECT digest, tenant_id, 'caller' AS role, customer_id, hint, path, revoked_at IS NULL AS is_live
    FROM api_key WHERE digest = ANY ($1) ORDER BY digest FOR NO KEY UPDATE
), operator AS (
    SELECT digest, tenant_id, 'operator' AS role, '' AS customer_id, hint, '{}'::text[] AS path, revoked_at IS NULL AS is_live
    FROM operator_token WHERE digest = ANY ($1) ORDER BY digest FOR NO KEY UPDATE
)
SELECT * FROM caller UNION ALL SELECT * FROM operator;

-- name: credential_page
-- rows: many
-- params: after text, most integer
-- Locked, so that nobody can be revoked between this reading and its writing.
WITH caller AS (
    SELECT digest, tenant_id, 'caller' AS role, customer_id, hint, path, true AS is_live
    FROM api_key WHERE digest > $1 AND revoked_at IS NULL ORDER BY digest LIMIT $2 FOR SHARE
), operator AS (
    SELECT digest, tenant_id, 'operator' AS role, '' AS customer_id, hint, '{}'::text[] AS path, true AS is_live
    FROM operator_token WHERE digest > $1 AND revoked_at IS NULL ORDER BY digest LIMIT $2 FOR SHARE
)
SELECT * FROM caller UNION ALL SELECT * FROM operator ORDER BY digest LIMIT $2;

-- name: tenants_locked
-- rows: many
-- params: tenant_ids text[]
SELECT tenant_id FROM tenant WHERE tenant_id = ANY ($1) ORDER BY tenant_id FOR NO KEY UPDATE;

-- name: all_tenants
-- rows: many
-- params:
SELECT tenant_id FROM tenant ORDER BY tenant_id;

-- name: meter_fields
-- rows: many
-- params: tenant_ids text[]
-- The fields that an event must have to be metered; a unique count takes text as well as numbers.
SELECT tenant_id, event, aggregation, field, scale FROM meter WHERE tenant_id = ANY ($1) ORDER BY tenant_id, code;

-- name: customers_of_shards
-- rows: many
-- params: shards integer[]
SELECT tenant_id, customer_id FROM customer WHERE shard = ANY ($1) ORDER BY tenant_id, customer_id;

-- name: grants_of_shards
-- rows: many
-- params: shards integer[]
-- All that may still hold something, overdrafts that are to be repaid, and those that were perhaps applied without anybody
-- having noted it.
SELECT g.grant_id, g.tenant_id, g.customer_id, g.currency, g.kind, g.amount_nanos, g.spent_nanos, g.lapsed_nanos,
       g.priority, g.effective_at, g.expires_at, g.features, g.price_nanos, g.price_currency, g.lowered_nanos, g.payment_id,
       g.note, g.created_at, g.applied_at, g.voided_at, g.ended_at
FROM customer c JOIN credit_grant g USING (tenant_id, customer_id)
WHERE c.shard = ANY ($1) AND (g.ended_at IS NULL OR g.applied_at IS NULL OR (g.kind = 'overdraft' AND g.spent_nanos > 0))
ORDER BY g.tenant_id, g.grant_id;
