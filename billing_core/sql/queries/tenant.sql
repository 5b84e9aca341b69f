-- name: tenant_insert
-- rows: none
-- params: tenant_id text, name text, sandbox boolean, clock_offset_ms bigint, created_at timestamptz
INSERT INTO tenant (tenant_id, name, sandbox, clock_offset_ms, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: tenant_by_id
-- rows: maybe
-- params: tenant_id text
SELECT tenant_id, name, sandbox, clock_offset_ms, created_at FROM tenant WHERE tenant_id = $1;

-- name: tenant_locked
-- rows: maybe
-- params: tenant_id text
SELECT tenant_id, name, sandbox, clock_offset_ms, created_at FROM tenant WHERE tenant_id = $1 FOR NO KEY UPDATE;

-- name: tenants_after
-- rows: many
-- params: tenant_id text, count integer
SELECT tenant_id, name, sandbox, clock_offset_ms, created_at FROM tenant
WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2;

-- name: tenant_clock_set
-- rows: none
-- params: tenant_id text, clock_offset_ms bigint
UPDATE tenant SET clock_offset_ms = $2 WHERE tenant_id = $1 AND clock_offset_ms <= $2;

-- name: operator_token_insert
-- rows: none
-- params: digest text, token_id text, tenant_id text, label text, hint text, created_at timestamptz
INSERT INTO operator_token (digest, token_id, tenant_id, label, hint, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: operator_token_tenant
-- rows: maybe
-- params: digest text
SELECT tenant_id FROM operator_token WHERE digest = $1 AND revoked_at IS NULL;

-- name: operator_tokens_after
-- rows: many
-- params: tenant_id text, token_id text, count integer
SELECT token_id, tenant_id, digest, label, hint, created_at, revoked_at FROM operator_token
WHERE tenant_id = $1 AND token_id > $2 ORDER BY token_id LIMIT $3;

-- name: operator_token_revoke
-- rows: maybe
-- params: tenant_id text, token_id text, revoked_at timestamptz
UPDATE operator_token SET revoked_at = coalesce(revoked_at, $3) WHERE tenant_id = $1 AND token_id = $2
RETURNING token_id, tenant_id, digest, label, hint, created_at, revoked_at;

-- name: answer_claim
-- rows: maybe
-- params: tenant_id text, key text, route text, digest text, created_at timestamptz, given_up_at timestamptz
-- A key that is free, or whose first request was given up, is claimed; any other claim finds no row.
INSERT INTO idempotent_answer AS known (tenant_id, key, route, digest, status, body, created_at)
VALUES ($1, $2, $3, $4, 0, '', $5)
ON CONFLICT (tenant_id, key) DO UPDATE SET created_at = EXCLUDED.created_at
WHERE known.status = 0 AND known.created_at < $6 AND known.route = EXCLUDED.route AND known.digest = EXCLUDED.digest
RETURNING route, digest, status, body, created_at;

-- name: answer_by_key
-- rows: maybe
-- params: tenant_id text, key text
SELECT route, digest, status, body, created_at FROM idempotent_answer WHERE tenant_id = $1 AND key = $2;

-- name: answer_keep
-- rows: none
-- params: tenant_id text, key text, created_at timestamptz, status integer, body bytea
UPDATE idempotent_answer SET status = $4, body = $5 WHERE tenant_id = $1 AND key = $2 AND created_at = $3 AND status = 0;

-- name: answer_release
-- rows: none
-- params: tenant_id text, key text, created_at timestamptz
DELETE FROM idempotent_answer WHERE tenant_id = $1 AND key = $2 AND created_at = $3 AND status = 0;

-- name: answers_forget
-- rows: none
-- params: created_before timestamptz, count integer
DELETE FROM idempotent_answer WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotent_answer WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED));
