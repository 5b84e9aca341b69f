-- Laws of bills, payments and what they book. Each query must return no row; '' asks about all tenants. Where a law is
-- about counts or minor units, the difference is told in those.

-- name: an_invoice_is_the_sum_of_its_lines
-- rows: many
-- params: tenant_id text
SELECT i.tenant_id, i.customer_id, i.invoice_id AS subject, i.currency,
    (abs(i.total_minor - coalesce(sum(l.amount_minor), 0)) + abs(i.prepaid_minor - coalesce(sum(l.prepaid_minor), 0)))::bigint
        AS difference_nanos
FROM invoice i LEFT JOIN invoice_line l USING (tenant_id, invoice_id)
WHERE $1 = '' OR i.tenant_id = $1
GROUP BY i.tenant_id, i.invoice_id
HAVING i.total_minor <> coalesce(sum(l.amount_minor), 0) OR i.prepaid_minor <> coalesce(sum(l.prepaid_minor), 0);

-- name: a_closed_period_has_one_invoice_and_an_open_one_none
-- rows: many
-- params: tenant_id text
SELECT p.tenant_id, p.customer_id, p.subscription_id AS subject, '' AS currency, count(i.invoice_id) AS difference_nanos
FROM billing_period p LEFT JOIN invoice i
    ON i.tenant_id = p.tenant_id AND i.subscription_id = p.subscription_id AND i.reason = 'period'
    AND i.period_start_at = p.start_at
WHERE $1 = '' OR p.tenant_id = $1
GROUP BY p.tenant_id, p.subscription_id, p.start_at
HAVING count(i.invoice_id) <> CASE WHEN p.state = 'closed' THEN 1 ELSE 0 END;

-- name: periods_follow_one_another
-- rows: many
-- params: tenant_id text
SELECT tenant_id, customer_id, subscription_id AS subject, '' AS currency, 1::bigint AS difference_nanos
FROM (
    SELECT tenant_id, customer_id, subscription_id, start_at,
        lag(end_at) OVER (PARTITION BY tenant_id, subscription_id ORDER BY start_at) AS before_at
    FROM billing_period WHERE $1 = '' OR tenant_id = $1
) AS period
WHERE before_at <> start_at;

-- name: an_active_subscription_has_an_open_period_and_an_ended_one_none
-- rows: many
-- params: tenant_id text
SELECT s.tenant_id, s.customer_id, s.subscription_id AS subject, '' AS currency, count(p.start_at) AS difference_nanos
FROM subscription s LEFT JOIN billing_period p
    ON p.tenant_id = s.tenant_id AND p.subscription_id = s.subscription_id AND p.state = 'open'
WHERE $1 = '' OR s.tenant_id = $1
GROUP BY s.tenant_id, s.subscription_id
HAVING count(p.start_at) <> CASE WHEN s.state = 'active' THEN 1 ELSE 0 END;

-- name: invoice_numbers_have_no_gap
-- rows: many
-- params: tenant_id text
SELECT n.tenant_id, '' AS customer_id, 'invoice_number' AS subject, '' AS currency, n.last - count(i.number) AS difference_nanos
FROM invoice_number n LEFT JOIN invoice i USING (tenant_id)
WHERE $1 = '' OR n.tenant_id = $1
GROUP BY n.tenant_id
HAVING count(i.number) <> n.last;

-- name: receivable_is_what_unpaid_invoices_booked_and_overdrafts_have_drawn
-- rows: many
-- params: tenant_id text
-- Told in nanos alone: what the open invoices' own transfers put on the receivable is what stands there, with the share of
-- the price that is drawn on overdrafts and not repaid, where recognition stands.
WITH standing AS (
    SELECT tenant_id, customer_id, currency, sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'accounts_receivable' AND ($1 = '' OR tenant_id = $1) GROUP BY tenant_id, customer_id, currency
), drawn AS (
    SELECT m.tenant_id, m.grant_id, sum(m.nanos) AS nanos
    FROM movement m JOIN shard s USING (shard)
    WHERE m.kind <> 'lapse' AND (m.stream_ms, m.stream_seq) <= (s.recognized_ms, s.recognized_seq)
      AND ($1 = '' OR m.tenant_id = $1)
    GROUP BY m.tenant_id, m.grant_id
), owing AS (
    SELECT e.tenant_id, e.customer_id, e.currency, e.nanos
    FROM invoice i
    JOIN ledger_transfer t ON t.tenant_id = i.tenant_id AND t.source = i.invoice_id
        AND t.kind IN ('fee_billed', 'usage_billed', 'usage_corrected')
    JOIN ledger_entry e ON e.tenant_id = t.tenant_id AND e.transfer_id = t.transfer_id AND e.account = 'accounts_receivable'
    WHERE i.state = 'finalized' AND ($1 = '' OR i.tenant_id = $1)
    UNION ALL
    SELECT g.tenant_id, g.customer_id, g.price_currency, div(g.price_nanos * d.nanos, g.amount_nanos)
    FROM credit_grant g JOIN drawn d USING (tenant_id, grant_id)
    WHERE g.kind = 'overdraft'
), owed AS (
    SELECT tenant_id, customer_id, currency, sum(nanos) AS nanos FROM owing GROUP BY tenant_id, customer_id, currency
)
SELECT tenant_id, customer_id, 'accounts_receivable' AS subject, currency,
    (coalesce(s.nanos, 0) - coalesce(o.nanos, 0))::bigint AS difference_nanos
FROM standing s FULL JOIN owed o USING (tenant_id, customer_id, currency)
WHERE coalesce(s.nanos, 0) <> coalesce(o.nanos, 0);

-- name: deferred_is_what_is_billed_and_not_earned
-- rows: many
-- params: tenant_id text
WITH unearned AS (
    SELECT tenant_id, customer_id, currency, sum(total_nanos - recognized_nanos) AS nanos FROM revenue_schedule
    WHERE state <> 'void' AND ($1 = '' OR tenant_id = $1) GROUP BY tenant_id, customer_id, currency
), booked AS (
    SELECT tenant_id, customer_id, currency, -sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'deferred_revenue' AND ($1 = '' OR tenant_id = $1) GROUP BY tenant_id, customer_id, currency
)
SELECT tenant_id, customer_id, 'deferred_revenue' AS subject, currency,
    (coalesce(u.nanos, 0) - coalesce(b.nanos, 0))::bigint AS difference_nanos
FROM unearned u FULL JOIN booked b USING (tenant_id, customer_id, currency)
WHERE coalesce(u.nanos, 0) <> coalesce(b.nanos, 0);

-- name: what_is_paid_was_received_once
-- rows: many
-- params: tenant_id text
SELECT i.tenant_id, i.customer_id, i.invoice_id AS subject, i.currency,
    (coalesce(sum(p.amount_minor), 0) - CASE WHEN i.state = 'paid' THEN i.due_minor ELSE 0 END)::bigint AS difference_nanos
FROM invoice i LEFT JOIN payment p
    ON p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id AND p.state = 'succeeded'
WHERE $1 = '' OR i.tenant_id = $1
GROUP BY i.tenant_id, i.invoice_id
HAVING coalesce(sum(p.amount_minor), 0) <> CASE WHEN i.state = 'paid' THEN i.due_minor ELSE 0 END;

-- name: a_payment_that_succeeded_is_booked_and_no_other
-- rows: many
-- params: tenant_id text
SELECT p.tenant_id, p.customer_id, p.payment_id AS subject, p.currency, p.amount_minor AS difference_nanos
FROM payment p LEFT JOIN ledger_transfer t
    ON t.tenant_id = p.tenant_id AND t.source = p.payment_id AND t.kind IN ('payment_received', 'top_up_paid')
WHERE (p.state = 'succeeded') <> (t.transfer_id IS NOT NULL) AND ($1 = '' OR p.tenant_id = $1);

-- name: who_is_suspended_by_dunning_has_not_paid
-- rows: many
-- params: tenant_id text
SELECT c.tenant_id, c.customer_id, 'dunning' AS subject, '' AS currency, 0::bigint AS difference_nanos
FROM customer c
WHERE c.dunning_suspended_at IS NOT NULL AND ($1 = '' OR c.tenant_id = $1) AND NOT EXISTS (
    SELECT FROM invoice i WHERE i.tenant_id = c.tenant_id AND i.customer_id = c.customer_id AND i.state = 'finalized');

-- name: a_top_up_that_succeeded_has_its_grant
-- rows: many
-- params: tenant_id text
SELECT p.tenant_id, p.customer_id, p.payment_id AS subject, p.currency, p.amount_minor AS difference_nanos
FROM payment p LEFT JOIN credit_grant g ON g.tenant_id = p.tenant_id AND g.payment_id = p.payment_id
WHERE p.purpose = 'top_up' AND (p.state = 'succeeded') <> (g.grant_id IS NOT NULL) AND ($1 = '' OR p.tenant_id = $1);
