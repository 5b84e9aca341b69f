-- name: usage_month
-- rows: none
-- params: instant timestamptz
SELECT ensure_usage_month($1);

-- name: parked_count
-- rows: one
-- params:
SELECT count(*) AS count FROM parked_entry;

-- name: parked_of_shards
-- rows: many
-- params: shards integer[]
SELECT shard, stream_ms, stream_seq, reason FROM parked_entry WHERE shard = ANY ($1) ORDER BY shard, stream_ms, stream_seq;
