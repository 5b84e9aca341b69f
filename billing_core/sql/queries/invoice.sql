-- Invoices and their lines. Rows go in by COPY; what changes afterwards is the state.

-- name: invoice_numbers_take
-- rows: one
-- params: tenant_id text, count bigint
-- The tenant's next numbers; the row stays locked until they are used or given back by a rollback.
INSERT INTO invoice_number AS held (tenant_id, last) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET last = held.last + EXCLUDED.last
RETURNING last - $2::bigint + 1 AS first;

-- name: invoice_by_id
-- rows: maybe
-- params: tenant_id text, invoice_id text
SELECT tenant_id, invoice_id, customer_id, subscription_id, number, currency, state, reason, time_zone, period_start_at,
    period_end_at, total_minor, prepaid_minor, due_minor, paid_minor, due_at, created_at, finalized_at, paid_at, voided_at
FROM invoice WHERE tenant_id = $1 AND invoice_id = $2;

-- name: invoice_locked
-- rows: maybe
-- params: tenant_id text, invoice_id text
SELECT tenant_id, invoice_id, customer_id, subscription_id, number, currency, state, reason, time_zone, period_start_at,
    period_end_at, total_minor, prepaid_minor, due_minor, paid_minor, due_at, created_at, finalized_at, paid_at, voided_at
FROM invoice WHERE tenant_id = $1 AND invoice_id = $2 FOR UPDATE;

-- name: invoices_after
-- rows: many
-- params: tenant_id text, customer_id text, state text, invoice_id text, count integer
-- In the order of their birth; an empty customer or state is any.
SELECT tenant_id, invoice_id, customer_id, subscription_id, number, currency, state, reason, time_zone, period_start_at,
    period_end_at, total_minor, prepaid_minor, due_minor, paid_minor, due_at, created_at, finalized_at, paid_at, voided_at
FROM invoice
WHERE tenant_id = $1 AND ($2 = '' OR customer_id = $2) AND ($3 = '' OR state = $3) AND invoice_id > $4
ORDER BY invoice_id LIMIT $5;

-- name: invoice_lines
-- rows: many
-- params: tenant_id text, invoice_id text
SELECT line_no, kind, description, plan_code, plan_version, price_code, meter_code, group_key, service_start_at,
    service_end_at, recorded_until, quantity, amount_minor, prepaid_minor, parts, event_count, unreadable_count,
    event_digest, earlier, wallet, wallet_nanos, unpaid_nanos
FROM invoice_line WHERE tenant_id = $1 AND invoice_id = $2 ORDER BY line_no;

-- name: billed_of_periods
-- rows: many
-- params: tenant_id text, subscription_ids text[], start_ats timestamptz[]
-- All that was billed for these closed periods, per price and group, whatever became of the invoices.
SELECT i.subscription_id, l.service_start_at AS start_at, l.price_code, l.meter_code, l.group_key, sum(l.quantity) AS quantity,
    sum(l.amount_minor)::bigint AS amount_minor, sum(l.prepaid_minor)::bigint AS prepaid_minor,
    sum(l.event_count)::bigint AS event_count
FROM unnest($2::text[], $3::timestamptz[]) AS asked (subscription_id, start_at)
JOIN invoice i ON i.tenant_id = $1 AND i.subscription_id = asked.subscription_id AND i.period_start_at >= asked.start_at
JOIN invoice_line l ON l.tenant_id = $1 AND l.invoice_id = i.invoice_id AND l.service_start_at = asked.start_at
    AND l.kind IN ('usage', 'correction')
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5;

-- name: invoice_finalize
-- rows: none
-- params: tenant_id text, invoice_id text, number text, state text, finalized_at timestamptz, due_at timestamptz, paid_at timestamptz
UPDATE invoice SET number = $3, state = $4, finalized_at = $5, due_at = $6, paid_at = $7
WHERE tenant_id = $1 AND invoice_id = $2 AND state = 'draft';

-- name: invoice_pay
-- rows: none
-- params: tenant_id text, invoice_id text, paid_at timestamptz
UPDATE invoice SET state = 'paid', paid_minor = due_minor, paid_at = $3
WHERE tenant_id = $1 AND invoice_id = $2 AND state = 'finalized';

-- name: invoice_void
-- rows: none
-- params: tenant_id text, invoice_id text, voided_at timestamptz
UPDATE invoice SET state = 'void', voided_at = $3
WHERE tenant_id = $1 AND invoice_id = $2 AND state IN ('draft', 'finalized');
