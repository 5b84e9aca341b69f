-- name: catalog_of_tenant
-- rows: maybe
-- params: tenant_id text
SELECT document, applied_at FROM catalog WHERE tenant_id = $1;

-- name: catalog_replace
-- rows: none
-- params: tenant_id text, document jsonb, applied_at timestamptz
INSERT INTO catalog (tenant_id, document, applied_at) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id) DO UPDATE SET document = EXCLUDED.document, applied_at = EXCLUDED.applied_at;

-- name: meter_put
-- rows: none
-- params: tenant_id text, code text, event text, aggregation text, field text, scale integer, group_by text[], created_at timestamptz
INSERT INTO meter (tenant_id, code, event, aggregation, field, scale, group_by, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (tenant_id, code) DO UPDATE SET event = EXCLUDED.event, aggregation = EXCLUDED.aggregation,
    field = EXCLUDED.field, scale = EXCLUDED.scale, group_by = EXCLUDED.group_by;

-- name: feature_put
-- rows: none
-- params: tenant_id text, code text, kind text, meter_code text, created_at timestamptz
INSERT INTO feature (tenant_id, code, kind, meter_code, created_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, code) DO UPDATE SET kind = EXCLUDED.kind, meter_code = EXCLUDED.meter_code;

-- name: meters_of_tenant
-- rows: many
-- params: tenant_id text
SELECT code, event, aggregation, field, scale, group_by FROM meter WHERE tenant_id = $1 ORDER BY code;

-- name: meter_by_code
-- rows: maybe
-- params: tenant_id text, code text
SELECT code, event, aggregation, field, scale, group_by FROM meter WHERE tenant_id = $1 AND code = $2;

-- name: plan_version_insert
-- rows: none
-- params: tenant_id text, code text, version integer, digest text, document jsonb, created_at timestamptz
INSERT INTO plan_version (tenant_id, code, version, digest, document, created_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: plan_versions_latest
-- rows: many
-- params: tenant_id text
SELECT DISTINCT ON (code) code, version, digest FROM plan_version WHERE tenant_id = $1 ORDER BY code, version DESC;

-- name: plan_version_offered
-- rows: maybe
-- params: tenant_id text, code text
-- The newest version of a plan that the catalog names today.
SELECT p.version, p.document AS terms
FROM plan_version p JOIN catalog c USING (tenant_id)
WHERE p.tenant_id = $1 AND p.code = $2
  AND c.document -> 'plans' @> jsonb_build_array(jsonb_build_object('code', $2))
ORDER BY p.version DESC LIMIT 1;

-- name: plan_version_by_number
-- rows: maybe
-- params: tenant_id text, code text, version integer
SELECT version, document AS terms FROM plan_version WHERE tenant_id = $1 AND code = $2 AND version = $3;
