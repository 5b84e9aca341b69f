-- name: usage_month
-- rows: none
-- params: instant timestamptz
SELECT ensure_usage_month($1);

-- name: parked_count
-- rows: one
-- params:
SELECT count(*) AS count FROM parked_entry;

-- name: parked_entries
-- rows: many
-- params: tenant_id text
SELECT shard, stream_ms, stream_seq, tenant_id, reason FROM parked_entry
WHERE $1 = '' OR tenant_id = $1 ORDER BY shard, stream_ms, stream_seq;
