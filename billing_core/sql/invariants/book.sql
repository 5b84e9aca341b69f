-- Laws of the books. Each query must return no row; '' asks about all tenants.

-- name: transfers_sum_to_zero
-- rows: many
-- params: tenant_id text
SELECT e.tenant_id, min(e.customer_id) AS customer_id, e.transfer_id AS subject, e.currency, sum(e.nanos)::bigint AS difference_nanos
FROM ledger_entry e
WHERE $1 = '' OR e.tenant_id = $1
GROUP BY e.tenant_id, e.transfer_id, e.currency
HAVING sum(e.nanos) <> 0;

-- name: liability_is_what_paid_grants_have_left
-- rows: many
-- params: tenant_id text
-- Contract liability stands negative. What was paid in, less what is recognized, is what paid grants had left where
-- recognition stands; movements behind that mark are not booked yet. Of a grant of credits it is the exact share of its price.
WITH moved AS (
    SELECT m.tenant_id, m.grant_id, sum(m.nanos) AS nanos
    FROM movement m JOIN shard s USING (shard)
    WHERE ($1 = '' OR m.tenant_id = $1) AND (m.stream_ms, m.stream_seq) <= (s.recognized_ms, s.recognized_seq)
    GROUP BY m.tenant_id, m.grant_id
), owed AS (
    SELECT g.tenant_id, g.customer_id, g.price_currency AS currency,
           sum(g.price_nanos - div(g.price_nanos * coalesce(m.nanos, 0), g.amount_nanos)) AS nanos
    FROM credit_grant g LEFT JOIN moved m USING (tenant_id, grant_id)
    WHERE g.kind = 'paid' AND ($1 = '' OR g.tenant_id = $1)
    GROUP BY g.tenant_id, g.customer_id, g.price_currency
), booked AS (
    SELECT tenant_id, customer_id, currency, -sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'contract_liability' AND ($1 = '' OR tenant_id = $1) GROUP BY tenant_id, customer_id, currency
)
SELECT tenant_id, customer_id, 'contract_liability' AS subject, currency,
       (coalesce(o.nanos, 0) - coalesce(b.nanos, 0))::bigint AS difference_nanos
FROM owed o FULL JOIN booked b USING (tenant_id, customer_id, currency)
WHERE coalesce(o.nanos, 0) <> coalesce(b.nanos, 0);
