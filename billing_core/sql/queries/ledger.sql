-- The books: transfers go in once per cause, balances come out.

-- name: ledger_book
-- rows: many
-- params: tenant_ids text[], transfer_ids text[], kinds text[], sources text[], booked_ats timestamptz[], entry_tenants text[], entry_transfers text[], entry_nos integer[], accounts text[], customer_ids text[], currencies text[], nanos bigint[]
WITH booked AS (
    INSERT INTO ledger_transfer (tenant_id, transfer_id, kind, source, booked_at, recorded_at)
    SELECT cause.tenant_id, cause.transfer_id, cause.kind, cause.source, cause.booked_at, clock_timestamp()
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
        AS cause (tenant_id, transfer_id, kind, source, booked_at)
    ORDER BY cause.tenant_id, cause.transfer_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, transfer_id
), sides AS (
    INSERT INTO ledger_entry (tenant_id, transfer_id, entry_no, account, customer_id, currency, nanos)
    SELECT side.tenant_id, side.transfer_id, side.entry_no, side.account, side.customer_id, side.currency, side.nanos
    FROM unnest($6::text[], $7::text[], $8::integer[], $9::text[], $10::text[], $11::text[], $12::bigint[])
        AS side (tenant_id, transfer_id, entry_no, account, customer_id, currency, nanos)
    JOIN booked USING (tenant_id, transfer_id)
)
SELECT transfer_id FROM booked;

-- name: ledger_entries_of_invoice
-- rows: many
-- params: tenant_id text, invoice_id text
-- What finalizing an invoice booked, for a void.
SELECT entry.account, entry.customer_id, entry.currency, entry.nanos
FROM ledger_transfer AS cause
JOIN ledger_entry AS entry USING (tenant_id, transfer_id)
WHERE cause.tenant_id = $1 AND cause.kind IN ('fee_billed', 'usage_billed', 'usage_corrected') AND cause.source = $2
ORDER BY cause.transfer_id, entry.entry_no;

-- name: ledger_trial_balance
-- rows: many
-- params: tenant_id text
SELECT entry.currency, entry.account,
    coalesce(sum(entry.nanos) FILTER (WHERE entry.nanos > 0), 0) AS debit_nanos,
    coalesce(sum(-entry.nanos) FILTER (WHERE entry.nanos < 0), 0) AS credit_nanos
FROM ledger_entry AS entry
WHERE entry.tenant_id = $1
GROUP BY entry.currency, entry.account
ORDER BY entry.currency, entry.account;

-- name: ledger_balances
-- rows: many
-- params: tenant_id text, from_at timestamptz, to_at timestamptz
-- What moved per month, account, customer and currency within [from, to).
SELECT to_char(cause.booked_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month, entry.account, entry.customer_id, entry.currency,
    sum(entry.nanos) AS nanos
FROM ledger_transfer AS cause
JOIN ledger_entry AS entry USING (tenant_id, transfer_id)
WHERE cause.tenant_id = $1 AND cause.booked_at >= $2 AND cause.booked_at < $3
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4;

-- name: ledger_standing
-- rows: many
-- params: tenant_id text, at timestamptz
-- How each account stands for each customer, all that was booked before the instant.
SELECT entry.account, entry.customer_id, entry.currency, sum(entry.nanos) AS nanos
FROM ledger_transfer AS cause
JOIN ledger_entry AS entry USING (tenant_id, transfer_id)
WHERE cause.tenant_id = $1 AND cause.booked_at < $2
GROUP BY 1, 2, 3
HAVING sum(entry.nanos) <> 0
ORDER BY 1, 2, 3;
