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

-- name: units_of_feature
-- rows: many
-- params: tenant_ids text[], customer_ids text[], names text[], since_ms bigint[], until_ms bigint[], bucket_ms bigint[], last_ms bigint, last_seq bigint
-- What the gate charged of named features, by path, currency and bucket, up to a place in the customers' stream.
SELECT asked.number, used.path, used.currency, used.bucket, used.units, used.rated_nanos
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
     WITH ORDINALITY AS asked (tenant_id, customer_id, name, since_ms, until_ms, bucket_ms, number)
CROSS JOIN LATERAL (
    SELECT e.path, e.currency, sum(e.quantity)::bigint AS units, sum(e.rated_nanos)::bigint AS rated_nanos,
           CASE WHEN asked.bucket_ms = 0 THEN 0
                ELSE floor(extract(epoch FROM e.event_at) * 1000 / asked.bucket_ms) END::bigint AS bucket
    FROM usage_event e
    WHERE e.tenant_id = asked.tenant_id AND e.customer_id = asked.customer_id AND e.name = asked.name AND e.source = 'gate'
      AND e.event_at >= 'epoch'::timestamptz + asked.since_ms * interval '1 millisecond'
      AND e.event_at < 'epoch'::timestamptz + asked.until_ms * interval '1 millisecond'
      AND (e.stream_ms, e.stream_seq) <= ($7, $8)
    GROUP BY e.path, e.currency, bucket
) AS used;

-- name: units_of_all
-- rows: many
-- params: tenant_ids text[], customer_ids text[], since_ms bigint[], until_ms bigint[], bucket_ms bigint[], last_ms bigint, last_seq bigint
-- The same of all features together, which is what a spend cap counts.
SELECT asked.number, used.path, used.currency, used.bucket, used.units, used.rated_nanos
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[])
     WITH ORDINALITY AS asked (tenant_id, customer_id, since_ms, until_ms, bucket_ms, number)
CROSS JOIN LATERAL (
    SELECT e.path, e.currency, sum(e.quantity)::bigint AS units, sum(e.rated_nanos)::bigint AS rated_nanos,
           CASE WHEN asked.bucket_ms = 0 THEN 0
                ELSE floor(extract(epoch FROM e.event_at) * 1000 / asked.bucket_ms) END::bigint AS bucket
    FROM usage_event e
    WHERE e.tenant_id = asked.tenant_id AND e.customer_id = asked.customer_id AND e.source = 'gate' AND e.currency <> ''
      AND e.event_at >= 'epoch'::timestamptz + asked.since_ms * interval '1 millisecond'
      AND e.event_at < 'epoch'::timestamptz + asked.until_ms * interval '1 millisecond'
      AND (e.stream_ms, e.stream_seq) <= ($6, $7)
    GROUP BY e.path, e.currency, bucket
) AS used;

-- name: gauge_changes
-- rows: many
-- params: tenant_ids text[], customer_ids text[], names text[], last_ms bigint, last_seq bigint
-- A row says the customer's new level. By how much it differs from the one before is what its path has moved.
SELECT asked.tenant_id, asked.customer_id, asked.name, moved.path, sum(moved.change)::bigint AS units
FROM unnest($1::text[], $2::text[], $3::text[]) AS asked (tenant_id, customer_id, name)
CROSS JOIN LATERAL (
    SELECT e.path, e.quantity - lag(e.quantity, 1, 0::numeric) OVER (ORDER BY e.stream_ms, e.stream_seq, e.part) AS change
    FROM usage_event e
    WHERE e.tenant_id = asked.tenant_id AND e.customer_id = asked.customer_id AND e.name = asked.name AND e.source = 'gate'
      AND (e.stream_ms, e.stream_seq) <= ($4, $5)
) AS moved
GROUP BY asked.tenant_id, asked.customer_id, asked.name, moved.path;

-- name: shadow_page
-- rows: many
-- params: tenant_id text, customer_id text, from_at timestamptz, to_at timestamptz, after_at timestamptz, after_shard integer, after_ms bigint, after_seq bigint, after_part integer, most integer
SELECT shard, stream_ms, stream_seq, part, customer_id, decision_id, feature, quantity, decided_at, reason, level, path, key_hint
FROM shadow_decision
WHERE tenant_id = $1 AND ($2 = '' OR customer_id = $2) AND decided_at >= $3 AND decided_at < $4
  AND (decided_at, shard, stream_ms, stream_seq, part) > ($5, $6, $7, $8, $9)
ORDER BY decided_at, shard, stream_ms, stream_seq, part
LIMIT $10;

-- name: shadow_reasons
-- rows: many
-- params: tenant_id text, customer_id text, from_at timestamptz, to_at timestamptz
SELECT reason, count(*) FILTER (WHERE part = 0) AS decisions, count(DISTINCT customer_id) AS customers
FROM shadow_decision
WHERE tenant_id = $1 AND ($2 = '' OR customer_id = $2) AND decided_at >= $3 AND decided_at < $4
GROUP BY reason ORDER BY reason;
