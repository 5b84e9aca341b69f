-- name: witnessed_usage
-- rows: many
-- params: tenant_id text, since_at timestamptz
-- What is written of each decision, and in how many entries: of a decision that was charged once, in one.
SELECT customer_id, event_id, count(DISTINCT (shard, stream_ms, stream_seq))::integer AS entries,
       sum(quantity)::bigint AS units, sum(charged_nanos)::bigint AS charged_nanos
FROM usage_event WHERE tenant_id = $1 AND recorded_at > $2 AND source = 'gate'
GROUP BY customer_id, event_id;

-- name: witnessed_count
-- rows: one
-- params: tenant_id text
SELECT count(*)::bigint AS decisions, coalesce(max(recorded_at), '1970-01-01Z') AS until_at
FROM (SELECT max(recorded_at) AS recorded_at FROM usage_event WHERE tenant_id = $1 AND source = 'gate' GROUP BY event_id) AS one;

-- name: witnessed_overspending
-- rows: many
-- params: tenant_id text
-- Grants of which more is gone than there was.
SELECT customer_id, sum(spent_nanos + lapsed_nanos - amount_nanos)::bigint AS nanos
FROM credit_grant WHERE tenant_id = $1 AND spent_nanos + lapsed_nanos > amount_nanos
GROUP BY customer_id;
