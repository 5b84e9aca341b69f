-- name: reconcile_owners
-- rows: many
-- params: shards integer[], tenant_id text
SELECT shard, tenant_id, customer_id FROM customer
WHERE shard = ANY ($1) AND ($2 = '' OR tenant_id = $2) ORDER BY shard, tenant_id, customer_id;

-- name: reconcile_grants
-- rows: many
-- params: shards integer[], tenant_id text
SELECT c.shard, g.tenant_id, g.customer_id, g.grant_id, g.currency, g.amount_nanos, g.spent_nanos, g.lapsed_nanos,
       g.applied_at IS NOT NULL AS is_applied
FROM customer c JOIN credit_grant g USING (tenant_id, customer_id)
WHERE c.shard = ANY ($1) AND ($2 = '' OR c.tenant_id = $2)
ORDER BY g.tenant_id, g.grant_id;

-- name: reconcile_moved_after
-- rows: many
-- params: shards integer[], last_ms bigint[], last_seq bigint[], tenant_id text
-- What came to the grants from entries behind these stream ids.
SELECT m.tenant_id, m.grant_id, coalesce(sum(m.nanos) FILTER (WHERE m.kind <> 'lapse'), 0)::bigint AS spent_nanos,
       coalesce(sum(m.nanos) FILTER (WHERE m.kind = 'lapse'), 0)::bigint AS lapsed_nanos
FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS seen (shard, last_ms, last_seq)
JOIN movement m ON m.shard = seen.shard AND (m.stream_ms, m.stream_seq) > (seen.last_ms, seen.last_seq)
WHERE $4 = '' OR m.tenant_id = $4
GROUP BY m.tenant_id, m.grant_id;

-- name: reconcile_counted
-- rows: many
-- params: shards integer[], tenant_id text
SELECT c.shard, c.tenant_id, c.customer_id, s.started_at
FROM customer c
LEFT JOIN LATERAL (
    SELECT started_at FROM subscription WHERE tenant_id = c.tenant_id AND customer_id = c.customer_id AND state = 'active' LIMIT 1
) AS s ON true
WHERE c.shard = ANY ($1) AND ($2 = '' OR c.tenant_id = $2) ORDER BY c.shard, c.tenant_id, c.customer_id;
