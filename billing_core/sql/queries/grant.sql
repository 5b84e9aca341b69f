-- name: grant_standing
-- rows: maybe
-- params: tenant_id text, customer_id text, currency text
-- Locks the customer, so that two grants at once cannot both find room for themselves alone. What is drawn on an overdraft
-- will come back to it.
WITH owner AS (
    SELECT c.tenant_id, c.customer_id, t.clock_offset_ms
    FROM customer c JOIN tenant t USING (tenant_id)
    WHERE c.tenant_id = $1 AND c.customer_id = $2
    FOR NO KEY UPDATE OF c
)
SELECT o.clock_offset_ms,
       coalesce((SELECT sum(g.amount_nanos - g.lapsed_nanos - CASE g.kind WHEN 'overdraft' THEN 0 ELSE g.spent_nanos END)::numeric
                 FROM credit_grant g
                 WHERE g.tenant_id = o.tenant_id AND g.customer_id = o.customer_id AND g.currency = $3
                   AND (g.ended_at IS NULL OR g.kind = 'overdraft')), 0)::bigint AS standing_nanos
FROM owner o;

-- name: grant_insert
-- rows: none
-- params: grant_id text, tenant_id text, customer_id text, currency text, kind text, amount_nanos bigint, priority integer, effective_at timestamptz, expires_at timestamptz, features text[], price_nanos bigint, price_currency text, payment_id text, note text, created_at timestamptz
INSERT INTO credit_grant (grant_id, tenant_id, customer_id, currency, kind, amount_nanos, priority, effective_at, expires_at,
                          features, price_nanos, price_currency, payment_id, note, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15);

-- name: grant_by_id
-- rows: maybe
-- params: tenant_id text, grant_id text
SELECT grant_id, tenant_id, customer_id, currency, kind, amount_nanos, spent_nanos, lapsed_nanos, priority, effective_at,
       expires_at, features, price_nanos, price_currency, lowered_nanos, payment_id, note, created_at, applied_at, voided_at,
       ended_at
FROM credit_grant
WHERE tenant_id = $1 AND grant_id = $2;

-- name: grants_by_id
-- rows: many
-- params: tenant_ids text[], grant_ids text[]
SELECT g.grant_id, g.tenant_id, g.customer_id, g.currency, g.kind, g.amount_nanos, g.spent_nanos, g.lapsed_nanos,
       g.priority, g.effective_at, g.expires_at, g.features, g.price_nanos, g.price_currency, g.lowered_nanos, g.payment_id,
       g.note, g.created_at, g.applied_at, g.voided_at, g.ended_at
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, grant_id) JOIN credit_grant g USING (tenant_id, grant_id);

-- name: grants_of_customer
-- rows: many
-- params: tenant_id text, customer_id text
SELECT grant_id, tenant_id, customer_id, currency, kind, amount_nanos, spent_nanos, lapsed_nanos, priority, effective_at,
       expires_at, features, price_nanos, price_currency, lowered_nanos, payment_id, note, created_at, applied_at, voided_at,
       ended_at
FROM credit_grant
WHERE tenant_id = $1 AND customer_id = $2
ORDER BY currency, created_at, grant_id;

-- name: grants_applied
-- rows: none
-- params: tenant_ids text[], grant_ids text[], at timestamptz
UPDATE credit_grant g
SET applied_at = $3
FROM unnest($1::text[], $2::text[]) AS done (tenant_id, grant_id)
WHERE g.tenant_id = done.tenant_id AND g.grant_id = done.grant_id AND g.applied_at IS NULL;

-- name: grant_void
-- rows: none
-- params: tenant_id text, grant_id text, voided_at timestamptz
UPDATE credit_grant SET voided_at = $3 WHERE tenant_id = $1 AND grant_id = $2 AND voided_at IS NULL;

-- name: grant_lower
-- rows: none
-- params: tenant_id text, grant_id text, limit_nanos bigint
UPDATE credit_grant SET lowered_nanos = $3 WHERE tenant_id = $1 AND grant_id = $2 AND kind = 'overdraft' AND voided_at IS NULL;

-- name: unit_is_declared
-- rows: one
-- params: tenant_id text, code text
SELECT EXISTS (
    SELECT FROM catalog c, jsonb_array_elements(c.document -> 'units') AS unit WHERE c.tenant_id = $1 AND unit ->> 'code' = $2
) AS is_there;

-- name: features_missing
-- rows: many
-- params: tenant_id text, codes text[]
-- Those of the codes that are no metered feature of the tenant, in their order.
SELECT asked.code FROM unnest($2::text[]) WITH ORDINALITY AS asked (code, place)
WHERE NOT EXISTS (SELECT FROM feature f WHERE f.tenant_id = $1 AND f.code = asked.code AND f.kind = 'metered')
ORDER BY asked.place;

-- name: grants_lapse
-- rows: many
-- params: now timestamptz, retry_ms bigint, most integer
-- Expired or voided and not yet empty, or an overdraft above its new limit: asked for again after a while, since a hold or
-- a repayment may give back late.
WITH asked AS MATERIALIZED (
    SELECT tenant_id, grant_id FROM credit_grant WHERE voided_at IS NOT NULL AND ended_at IS NULL
    UNION
    SELECT tenant_id, grant_id FROM credit_grant
    WHERE lowered_nanos IS NOT NULL AND ended_at IS NULL AND amount_nanos - lapsed_nanos > lowered_nanos
    UNION
    SELECT g.tenant_id, g.grant_id FROM tenant t JOIN credit_grant g ON g.tenant_id = t.tenant_id
        AND g.expires_at <= $1::timestamptz + t.clock_offset_ms * interval '1 millisecond'
        AND g.expires_at IS NOT NULL AND g.ended_at IS NULL
), due AS (
    SELECT g.tenant_id, g.grant_id
    FROM asked JOIN credit_grant g USING (tenant_id, grant_id)
    WHERE g.ended_at IS NULL
      AND (g.lapse_tried_at IS NULL OR g.lapse_tried_at <= $1::timestamptz - $2 * interval '1 millisecond')
    ORDER BY g.tenant_id, g.grant_id
    LIMIT $3
    FOR NO KEY UPDATE OF g SKIP LOCKED
)
UPDATE credit_grant g SET lapse_tried_at = $1
FROM due WHERE g.tenant_id = due.tenant_id AND g.grant_id = due.grant_id
RETURNING g.tenant_id, g.grant_id, g.customer_id;

-- name: grants_move
-- rows: many
-- params: tenant_ids text[], grant_ids text[], spent_nanos bigint[], lapsed_nanos bigint[], last_ats timestamptz[]
-- Locked in sorted order first: two flushers that met the same grants would otherwise wait for each other.
WITH moved AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[]) AS m (tenant_id, grant_id, spent, lapsed, last_at)
), held AS (
    SELECT g.tenant_id, g.grant_id
    FROM credit_grant g JOIN moved m USING (tenant_id, grant_id)
    ORDER BY g.tenant_id, g.grant_id
    FOR NO KEY UPDATE OF g
)
UPDATE credit_grant g
SET spent_nanos = g.spent_nanos + m.spent,
    lapsed_nanos = g.lapsed_nanos + m.lapsed,
    ended_at = CASE WHEN g.spent_nanos + g.lapsed_nanos + m.spent + m.lapsed = g.amount_nanos
                    THEN coalesce(g.ended_at, m.last_at) END
FROM moved m JOIN held h USING (tenant_id, grant_id)
WHERE g.tenant_id = m.tenant_id AND g.grant_id = m.grant_id
RETURNING g.tenant_id, g.grant_id;
