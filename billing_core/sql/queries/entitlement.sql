-- What customers have apart from their plans. Instants are on the tenant's clock.

-- name: features_by_code
-- rows: many
-- params: tenant_id text, codes text[]
SELECT code, kind, coalesce(meter_code, '') AS meter FROM feature WHERE tenant_id = $1 AND code = ANY ($2::text[]) ORDER BY code;

-- name: own_entitlement_insert
-- rows: none
-- params: tenant_id text, entitlement_id text, customer_id text, kind text, feature_code text, feature_kind text, terms jsonb, note text, effective_at timestamptz, expires_at timestamptz, created_at timestamptz
INSERT INTO customer_entitlement (tenant_id, entitlement_id, customer_id, kind, feature_code, feature_kind, terms, note,
                                  effective_at, expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: own_entitlement_end
-- rows: maybe
-- params: tenant_id text, customer_id text, entitlement_id text, ended_at timestamptz
-- One that is ended stays as it is.
UPDATE customer_entitlement SET ended_at = coalesce(ended_at, $4)
WHERE tenant_id = $1 AND customer_id = $2 AND entitlement_id = $3
RETURNING entitlement_id, customer_id, kind, feature_kind, terms, note, effective_at, expires_at, created_at, ended_at;

-- name: own_entitlements_after
-- rows: many
-- params: tenant_id text, customer_id text, entitlement_id text, count integer
-- All of a customer in the order of their birth, ended ones among them.
SELECT entitlement_id, customer_id, kind, feature_kind, terms, note, effective_at, expires_at, created_at, ended_at
FROM customer_entitlement WHERE tenant_id = $1 AND customer_id = $2 AND entitlement_id > $3 ORDER BY entitlement_id LIMIT $4;

-- name: own_entitlements_of
-- rows: many
-- params: tenant_ids text[], customer_ids text[]
SELECT e.tenant_id, e.customer_id, e.entitlement_id, e.kind, e.feature_kind, e.terms, e.effective_at, e.expires_at
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, customer_id) JOIN customer_entitlement e USING (customer_id, tenant_id)
WHERE e.ended_at IS NULL;

-- name: addon_shorten
-- rows: none
-- params: tenant_id text, subscription_id text, addon_code text, from_at timestamptz, now timestamptz
-- What is taken of the add-on counts until the instant; what would begin at it or later is ended.
UPDATE subscription_addon SET
    expires_at = CASE WHEN effective_at < $4 THEN $4::timestamptz ELSE expires_at END,
    ended_at = CASE WHEN effective_at < $4 THEN NULL ELSE $5::timestamptz END
WHERE tenant_id = $1 AND subscription_id = $2 AND addon_code = $3 AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $4);

-- name: addon_insert
-- rows: none
-- params: tenant_id text, taken_id text, subscription_id text, customer_id text, addon_code text, quantity bigint, terms jsonb, effective_at timestamptz, expires_at timestamptz, created_at timestamptz
INSERT INTO subscription_addon (tenant_id, taken_id, subscription_id, customer_id, addon_code, quantity, terms, effective_at,
                                expires_at, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: addons_after
-- rows: many
-- params: tenant_id text, subscription_id text, taken_id text, count integer
-- All that was ever taken with a subscription, in the order of its birth.
SELECT taken_id, subscription_id, customer_id, addon_code, quantity, effective_at, expires_at, created_at, ended_at
FROM subscription_addon WHERE tenant_id = $1 AND subscription_id = $2 AND taken_id > $3 ORDER BY taken_id LIMIT $4;

-- name: addons_of
-- rows: many
-- params: tenant_ids text[], customer_ids text[]
-- With any subscription: which one is active was read before, and a close may have ended it since.
SELECT a.tenant_id, a.customer_id, a.subscription_id, a.quantity, a.terms, a.effective_at, a.expires_at
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, customer_id) JOIN subscription_addon a USING (customer_id, tenant_id)
WHERE a.ended_at IS NULL;

-- name: budget_put
-- rows: none
-- params: tenant_id text, customer_id text, document jsonb, written_at timestamptz
INSERT INTO customer_budget (tenant_id, customer_id, document, written_at) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant_id, customer_id) DO UPDATE SET document = EXCLUDED.document, written_at = EXCLUDED.written_at;

-- name: budget_of_customer
-- rows: maybe
-- params: tenant_id text, customer_id text
SELECT document, written_at FROM customer_budget WHERE tenant_id = $1 AND customer_id = $2;

-- name: budgets_of
-- rows: many
-- params: tenant_ids text[], customer_ids text[]
SELECT b.tenant_id, b.customer_id, b.document
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, customer_id) JOIN customer_budget b USING (tenant_id, customer_id);
