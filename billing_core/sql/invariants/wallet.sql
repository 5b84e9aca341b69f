-- Laws of wallets and usage. Each query must return no row; '' asks about all tenants.

-- name: movements_add_up_to_the_grant
-- rows: many
-- params: tenant_id text
SELECT g.tenant_id, g.customer_id, g.grant_id AS subject, g.currency,
       (g.spent_nanos + g.lapsed_nanos - coalesce(sum(m.nanos), 0))::bigint AS difference_nanos
FROM credit_grant g LEFT JOIN movement m USING (tenant_id, grant_id)
WHERE $1 = '' OR g.tenant_id = $1
GROUP BY g.tenant_id, g.grant_id
HAVING g.spent_nanos + g.lapsed_nanos <> coalesce(sum(m.nanos), 0);

-- name: lapses_add_up_to_the_grant
-- rows: many
-- params: tenant_id text
SELECT g.tenant_id, g.customer_id, g.grant_id AS subject, g.currency,
       (g.lapsed_nanos - coalesce(sum(m.nanos), 0))::bigint AS difference_nanos
FROM credit_grant g LEFT JOIN movement m ON m.tenant_id = g.tenant_id AND m.grant_id = g.grant_id AND m.kind = 'lapse'
WHERE $1 = '' OR g.tenant_id = $1
GROUP BY g.tenant_id, g.grant_id
HAVING g.lapsed_nanos <> coalesce(sum(m.nanos), 0);

-- name: a_repayment_moves_as_much_back_as_it_takes
-- rows: many
-- params: tenant_id text
-- Out of paid grants, and back onto overdrafts that were drawn.
SELECT m.tenant_id, min(m.customer_id) AS customer_id, min(m.event_id) AS subject, min(m.currency) AS currency,
       sum(m.nanos)::bigint AS difference_nanos
FROM movement m JOIN credit_grant g USING (tenant_id, grant_id)
WHERE m.kind = 'repay' AND ($1 = '' OR m.tenant_id = $1)
GROUP BY m.tenant_id, m.shard, m.stream_ms, m.stream_seq
HAVING sum(m.nanos) <> 0 OR bool_or(g.kind <> CASE WHEN m.nanos > 0 THEN 'paid' ELSE 'overdraft' END);

-- name: movements_are_of_their_customers_grant
-- rows: many
-- params: tenant_id text
SELECT m.tenant_id, m.customer_id, m.grant_id AS subject, m.currency, sum(m.nanos)::bigint AS difference_nanos
FROM movement m LEFT JOIN credit_grant g
    ON g.tenant_id = m.tenant_id AND g.grant_id = m.grant_id AND g.customer_id = m.customer_id AND g.currency = m.currency
WHERE g.grant_id IS NULL AND ($1 = '' OR m.tenant_id = $1)
GROUP BY m.tenant_id, m.customer_id, m.grant_id, m.currency;

-- name: charges_are_movements_of_the_same_entry
-- rows: many
-- params: tenant_id text
-- In each currency and unit for itself.
WITH charged AS (
    SELECT shard, stream_ms, stream_seq, currency, min(tenant_id) AS tenant_id, min(customer_id) AS customer_id,
           min(event_id) AS event_id, sum(charged_nanos) AS nanos
    FROM usage_event WHERE charged_nanos > 0 AND ($1 = '' OR tenant_id = $1)
    GROUP BY shard, stream_ms, stream_seq, currency
), moved AS (
    SELECT shard, stream_ms, stream_seq, currency, min(tenant_id) AS tenant_id, min(customer_id) AS customer_id,
           min(event_id) AS event_id, sum(nanos) AS nanos
    FROM movement WHERE kind IN ('debit', 'settle') AND ($1 = '' OR tenant_id = $1)
    GROUP BY shard, stream_ms, stream_seq, currency
)
SELECT coalesce(c.tenant_id, m.tenant_id) AS tenant_id, coalesce(c.customer_id, m.customer_id) AS customer_id,
       coalesce(c.event_id, m.event_id) AS subject, currency,
       (coalesce(c.nanos, 0) - coalesce(m.nanos, 0))::bigint AS difference_nanos
FROM charged c FULL JOIN moved m USING (shard, stream_ms, stream_seq, currency)
WHERE c.nanos IS DISTINCT FROM m.nanos;

-- name: a_place_in_a_stream_is_written_once
-- rows: many
-- params: tenant_id text
-- The key of usage has the month in it; this law has not.
SELECT min(tenant_id) AS tenant_id, min(customer_id) AS customer_id, min(event_id) AS subject, min(currency) AS currency,
       count(*) - 1 AS difference_nanos
FROM usage_event
WHERE $1 = '' OR tenant_id = $1
GROUP BY shard, stream_ms, stream_seq, part
HAVING count(*) > 1;

-- name: nothing_is_written_from_beyond_the_watermark
-- rows: many
-- params: tenant_id text
SELECT m.tenant_id, m.customer_id, m.grant_id AS subject, m.currency, m.nanos AS difference_nanos
FROM movement m JOIN shard s USING (shard)
WHERE (m.stream_ms, m.stream_seq) > (s.watermark_ms, s.watermark_seq) AND ($1 = '' OR m.tenant_id = $1);
