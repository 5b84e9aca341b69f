-- The laws of bills, payments and books. Each query returns what breaks its law; all of them must return no row.

-- name: a_transfer_sums_to_zero
-- rows: many
-- params:
SELECT tenant_id, transfer_id, currency, sum(nanos) AS nanos FROM ledger_entry GROUP BY 1, 2, 3 HAVING sum(nanos) <> 0;

-- name: an_invoice_is_the_sum_of_its_lines
-- rows: many
-- params:
SELECT i.tenant_id, i.invoice_id, i.total_minor, i.prepaid_minor, sum(l.amount_minor) AS lines_minor, sum(l.prepaid_minor) AS lines_prepaid_minor
FROM invoice i LEFT JOIN invoice_line l USING (tenant_id, invoice_id)
GROUP BY 1, 2, 3, 4
HAVING i.total_minor <> coalesce(sum(l.amount_minor), 0) OR i.prepaid_minor <> coalesce(sum(l.prepaid_minor), 0);

-- name: a_closed_period_has_one_invoice
-- rows: many
-- params:
SELECT p.tenant_id, p.subscription_id, p.start_at, count(i.invoice_id) AS invoices
FROM billing_period p LEFT JOIN invoice i
    ON i.tenant_id = p.tenant_id AND i.subscription_id = p.subscription_id AND i.reason = 'period' AND i.period_start_at = p.start_at
WHERE p.state = 'closed' GROUP BY 1, 2, 3 HAVING count(i.invoice_id) <> 1;

-- name: an_open_period_has_no_invoice_of_its_usage
-- rows: many
-- params:
SELECT p.tenant_id, p.subscription_id, p.start_at, i.invoice_id
FROM billing_period p JOIN invoice i
    ON i.tenant_id = p.tenant_id AND i.subscription_id = p.subscription_id AND i.reason = 'period' AND i.period_start_at = p.start_at
WHERE p.state = 'open';

-- name: periods_follow_one_another
-- rows: many
-- params:
SELECT tenant_id, subscription_id, start_at, before_at FROM (
    SELECT tenant_id, subscription_id, start_at, lag(end_at) OVER (PARTITION BY tenant_id, subscription_id ORDER BY start_at) AS before_at
    FROM billing_period) AS period
WHERE before_at <> start_at;

-- name: an_active_subscription_has_an_open_period_and_an_ended_one_has_none
-- rows: many
-- params:
SELECT s.tenant_id, s.subscription_id, s.state, count(p.start_at) AS open_periods
FROM subscription s LEFT JOIN billing_period p
    ON p.tenant_id = s.tenant_id AND p.subscription_id = s.subscription_id AND p.state = 'open'
GROUP BY 1, 2, 3 HAVING count(p.start_at) <> CASE WHEN s.state = 'active' THEN 1 ELSE 0 END;

-- name: invoice_numbers_have_no_gap
-- rows: many
-- params:
SELECT n.tenant_id, n.last, count(i.number) AS invoices FROM invoice_number n LEFT JOIN invoice i USING (tenant_id)
GROUP BY 1, 2 HAVING count(i.number) <> n.last;

-- name: receivable_is_what_is_finalized_and_not_paid
-- rows: many
-- params:
-- Minor units are compared, because the exponent of a currency is not known here: each customer's two sums have one ratio.
WITH owed AS (
    SELECT tenant_id, customer_id, currency, sum(due_minor - paid_minor) AS minor FROM invoice
    WHERE state = 'finalized' GROUP BY 1, 2, 3
), booked AS (
    SELECT tenant_id, customer_id, currency, sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'accounts_receivable' GROUP BY 1, 2, 3
)
SELECT tenant_id, customer_id, currency, owed.minor, booked.nanos
FROM owed FULL JOIN booked USING (tenant_id, customer_id, currency)
WHERE coalesce(booked.nanos, 0) NOT IN (coalesce(owed.minor, 0) * 1000000000, coalesce(owed.minor, 0) * 10000000, coalesce(owed.minor, 0) * 1000000, coalesce(owed.minor, 0) * 100000);

-- name: deferred_is_what_is_billed_and_not_earned
-- rows: many
-- params:
WITH unearned AS (
    SELECT tenant_id, customer_id, currency, sum(total_nanos - recognized_nanos) AS nanos FROM revenue_schedule
    WHERE state <> 'void' GROUP BY 1, 2, 3
), booked AS (
    SELECT tenant_id, customer_id, currency, -sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'deferred_revenue' GROUP BY 1, 2, 3
)
SELECT tenant_id, customer_id, currency, unearned.nanos AS unearned_nanos, booked.nanos AS booked_nanos
FROM unearned FULL JOIN booked USING (tenant_id, customer_id, currency)
WHERE coalesce(unearned.nanos, 0) <> coalesce(booked.nanos, 0);

-- name: liability_is_paid_credit_that_is_not_recognized
-- rows: many
-- params:
WITH granted AS (
    SELECT tenant_id, customer_id, currency, sum(amount_nanos) AS nanos FROM credit_grant
    WHERE kind = 'paid' AND payment_id IS NOT NULL GROUP BY 1, 2, 3
), gone AS (
    SELECT m.tenant_id, m.customer_id, m.currency, sum(m.nanos) AS nanos
    FROM movement m
    JOIN shard s ON s.shard = m.shard AND (m.stream_ms, m.stream_seq) <= (s.recognized_ms, s.recognized_seq)
    JOIN credit_grant g ON g.tenant_id = m.tenant_id AND g.grant_id = m.grant_id AND g.kind = 'paid' AND g.payment_id IS NOT NULL
    GROUP BY 1, 2, 3
), booked AS (
    SELECT tenant_id, customer_id, currency, -sum(nanos) AS nanos FROM ledger_entry
    WHERE account = 'contract_liability' GROUP BY 1, 2, 3
)
SELECT tenant_id, customer_id, currency, granted.nanos AS granted_nanos, gone.nanos AS gone_nanos, booked.nanos AS booked_nanos
FROM granted LEFT JOIN gone USING (tenant_id, customer_id, currency) FULL JOIN booked USING (tenant_id, customer_id, currency)
WHERE coalesce(granted.nanos, 0) - coalesce(gone.nanos, 0) <> coalesce(booked.nanos, 0);

-- name: what_is_paid_was_received_once
-- rows: many
-- params:
SELECT i.tenant_id, i.invoice_id, i.state, i.due_minor, coalesce(sum(p.amount_minor), 0) AS received_minor
FROM invoice i LEFT JOIN payment p
    ON p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id AND p.state = 'succeeded'
GROUP BY 1, 2, 3, 4
HAVING coalesce(sum(p.amount_minor), 0) <> CASE WHEN i.state = 'paid' THEN i.due_minor ELSE 0 END;

-- name: a_top_up_that_succeeded_has_its_grant
-- rows: many
-- params:
SELECT p.tenant_id, p.payment_id, p.state, g.grant_id FROM payment p
LEFT JOIN credit_grant g ON g.tenant_id = p.tenant_id AND g.payment_id = p.payment_id
WHERE p.purpose = 'top_up' AND (p.state = 'succeeded') <> (g.grant_id IS NOT NULL);
