-- Revenue: schedules of fees, and the stretches of the streams whose burn is not in the books yet.

-- name: tenants_earning
-- rows: many
-- params: now timestamptz
-- Tenants with schedules of which another day is over.
SELECT t.tenant_id, t.clock_offset_ms FROM tenant t
WHERE EXISTS (
    SELECT FROM revenue_schedule s WHERE s.tenant_id = t.tenant_id AND s.state = 'running'
        AND s.due_at <= $1::timestamptz + t.clock_offset_ms * interval '1 millisecond')
ORDER BY t.tenant_id;

-- name: schedules_due
-- rows: many
-- params: tenant_id text, at timestamptz, most integer
SELECT tenant_id, invoice_id, line_no, customer_id, currency, time_zone, total_nanos, recognized_nanos, days_recognized,
    start_at, end_at, due_at, state
FROM revenue_schedule WHERE tenant_id = $1 AND state = 'running' AND due_at <= $2
ORDER BY due_at, invoice_id, line_no LIMIT $3 FOR UPDATE SKIP LOCKED;

-- name: schedules_earn
-- rows: none
-- params: tenant_id text, invoice_ids text[], line_nos integer[], recognized_nanos bigint[], days_recognized integer[], due_ats timestamptz[], states text[]
UPDATE revenue_schedule AS s
SET recognized_nanos = new.recognized_nanos, days_recognized = new.days_recognized, due_at = new.due_at, state = new.state
FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::integer[], $6::timestamptz[], $7::text[])
    AS new (invoice_id, line_no, recognized_nanos, days_recognized, due_at, state)
WHERE s.tenant_id = $1 AND s.invoice_id = new.invoice_id AND s.line_no = new.line_no AND s.state = 'running'
    AND s.days_recognized < new.days_recognized;

-- name: schedules_void
-- rows: many
-- params: tenant_id text, invoice_id text
-- End the schedules of a voided invoice; what they had recognized is reversed with it.
UPDATE revenue_schedule SET state = 'void' WHERE tenant_id = $1 AND invoice_id = $2
RETURNING tenant_id, invoice_id, line_no, customer_id, currency, time_zone, total_nanos, recognized_nanos,
    days_recognized, start_at, end_at, due_at, state;

-- name: shards_unrecognized
-- rows: many
-- params: recognized_before_ms bigint
-- Shards with flushed entries whose burn is not booked, and that were not looked at since the instant.
SELECT shard, recognized_ms, recognized_seq, watermark_ms, watermark_seq FROM shard
WHERE (recognized_ms, recognized_seq) < (watermark_ms, watermark_seq) AND recognized_ms <= $1 ORDER BY shard;

-- name: burn_of_stretch
-- rows: many
-- params: shard integer, after_ms bigint, after_seq bigint, until_ms bigint, until_seq bigint
-- What left grants that money pays for within a stretch of the stream, per customer and date of the customer. A grant that
-- costs what it is needs no counting of its own; each other one is told apart, with its price. Limits that lapse undrawn
-- are nothing to anybody.
SELECT m.tenant_id, m.customer_id, g.price_currency AS currency, g.kind = 'overdraft' AS overdrawn,
    CASE WHEN g.price_nanos = g.amount_nanos THEN '' ELSE g.grant_id END AS grant_id,
    ((m.event_at AT TIME ZONE c.time_zone)::date::timestamp AT TIME ZONE 'UTC') AS day,
    CASE WHEN m.kind IN ('lapse', 'repay') THEN m.kind ELSE 'burn' END AS act, sum(m.nanos)::bigint AS nanos
FROM movement m
JOIN credit_grant g ON g.tenant_id = m.tenant_id AND g.grant_id = m.grant_id
    AND (g.payment_id IS NOT NULL OR (g.kind = 'overdraft' AND m.kind <> 'lapse'))
JOIN customer c ON c.tenant_id = m.tenant_id AND c.customer_id = m.customer_id
WHERE m.shard = $1 AND (m.stream_ms, m.stream_seq) > ($2, $3) AND (m.stream_ms, m.stream_seq) <= ($4, $5)
GROUP BY 1, 2, 3, 4, 5, 6, 7
ORDER BY 1, 2, 3, 4, 5, 6, 7;

-- name: grants_booked
-- rows: many
-- params: tenant_ids text[], grant_ids text[]
SELECT g.tenant_id, g.grant_id, g.amount_nanos, g.price_nanos, g.booked_nanos
FROM unnest($1::text[], $2::text[]) AS asked (tenant_id, grant_id) JOIN credit_grant g USING (tenant_id, grant_id)
ORDER BY g.tenant_id, g.grant_id;

-- name: grants_book
-- rows: none
-- params: tenant_ids text[], grant_ids text[], booked_nanos bigint[]
UPDATE credit_grant g SET booked_nanos = told.booked
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS told (tenant_id, grant_id, booked)
WHERE g.tenant_id = told.tenant_id AND g.grant_id = told.grant_id;

-- name: shard_recognize
-- rows: none
-- params: shard integer, after_ms bigint, after_seq bigint, until_ms bigint, until_seq bigint
UPDATE shard SET recognized_ms = $4, recognized_seq = $5 WHERE shard = $1 AND recognized_ms = $2 AND recognized_seq = $3;
