-- Payments: rows go in by COPY, are claimed for an attempt, and saved under lock. `now` comes in real time.

-- name: payment_by_id
-- rows: maybe
-- params: tenant_id text, payment_id text
SELECT tenant_id, payment_id, customer_id, invoice_id, purpose, method, currency, amount_minor, state, attempt,
    processor_id, reference, request_key, failure_code, top_up, next_try_at, attempted_at, received_at, created_at, settled_at
FROM payment WHERE tenant_id = $1 AND payment_id = $2;

-- name: payment_locked
-- rows: maybe
-- params: tenant_id text, payment_id text
SELECT tenant_id, payment_id, customer_id, invoice_id, purpose, method, currency, amount_minor, state, attempt,
    processor_id, reference, request_key, failure_code, top_up, next_try_at, attempted_at, received_at, created_at, settled_at
FROM payment WHERE tenant_id = $1 AND payment_id = $2 FOR UPDATE;

-- name: payment_by_request
-- rows: maybe
-- params: tenant_id text, request_key text
SELECT tenant_id, payment_id, customer_id, invoice_id, purpose, method, currency, amount_minor, state, attempt,
    processor_id, reference, request_key, failure_code, top_up, next_try_at, attempted_at, received_at, created_at, settled_at
FROM payment WHERE tenant_id = $1 AND request_key = $2;

-- name: payment_live_of_invoice
-- rows: maybe
-- params: tenant_id text, invoice_id text
-- The invoice's one payment that is not given up.
SELECT tenant_id, payment_id, customer_id, invoice_id, purpose, method, currency, amount_minor, state, attempt,
    processor_id, reference, request_key, failure_code, top_up, next_try_at, attempted_at, received_at, created_at, settled_at
FROM payment
WHERE tenant_id = $1 AND invoice_id = $2 AND state IN ('pending', 'processing', 'succeeded') FOR UPDATE;

-- name: payments_after
-- rows: many
-- params: tenant_id text, customer_id text, invoice_id text, state text, payment_id text, count integer
-- In the order of their birth; an empty customer, invoice or state is any.
SELECT tenant_id, payment_id, customer_id, invoice_id, purpose, method, currency, amount_minor, state, attempt,
    processor_id, reference, request_key, failure_code, top_up, next_try_at, attempted_at, received_at, created_at, settled_at
FROM payment
WHERE tenant_id = $1 AND ($2 = '' OR customer_id = $2) AND ($3 = '' OR invoice_id = $3) AND ($4 = '' OR state = $4)
    AND payment_id > $5
ORDER BY payment_id LIMIT $6;

-- name: payments_claim
-- rows: many
-- params: now timestamptz, lease_ms bigint, most integer
-- Stripe payments that are due, marked as being processed until the lease ends, with what a charge must know. An attempt
-- that was under way before is resumed; it keeps the instant at which it was first sent.
WITH due AS (
    SELECT p.tenant_id, p.payment_id, p.state = 'processing' AS resumed, t.clock_offset_ms
    FROM tenant t JOIN payment p USING (tenant_id)
    WHERE p.method = 'stripe' AND p.state IN ('pending', 'processing')
        AND p.next_try_at <= $1::timestamptz + t.clock_offset_ms * interval '1 millisecond'
    ORDER BY p.next_try_at LIMIT $3 FOR UPDATE OF p SKIP LOCKED
), claimed AS (
    UPDATE payment AS p SET state = 'processing', attempted_at = coalesce(p.attempted_at, $1::timestamptz),
        next_try_at = $1::timestamptz + (due.clock_offset_ms + $2::bigint) * interval '1 millisecond'
    FROM due WHERE p.tenant_id = due.tenant_id AND p.payment_id = due.payment_id
    RETURNING p.tenant_id, p.payment_id, p.customer_id, p.invoice_id, p.purpose, p.currency, p.amount_minor, p.attempt,
        p.processor_id, p.attempted_at, due.resumed, due.clock_offset_ms
)
SELECT claimed.tenant_id, claimed.payment_id, claimed.purpose, claimed.currency, claimed.amount_minor, claimed.attempt,
    claimed.processor_id, claimed.attempted_at, claimed.resumed, claimed.clock_offset_ms,
    c.stripe_customer AS processor_customer, c.stripe_payment_method AS processor_method,
    coalesce(i.number, '') AS invoice_number
FROM claimed
JOIN customer c USING (tenant_id, customer_id)
LEFT JOIN invoice i USING (tenant_id, invoice_id)
ORDER BY claimed.tenant_id, claimed.payment_id;

-- name: payment_processor_of
-- rows: maybe
-- params: tenant_id text, customer_id text
-- Where a customer is charged, the row locked so that two requests of one customer come one after another.
SELECT c.stripe_customer AS processor_customer, c.stripe_payment_method AS processor_method, t.clock_offset_ms
FROM customer c JOIN tenant t USING (tenant_id)
WHERE c.tenant_id = $1 AND c.customer_id = $2 FOR NO KEY UPDATE OF c;

-- name: payment_save
-- rows: none
-- params: tenant_id text, payment_id text, method text, state text, attempt integer, processor_id text, reference text, failure_code text, next_try_at timestamptz, attempted_at timestamptz, received_at timestamptz, settled_at timestamptz
UPDATE payment SET method = $3, state = $4, attempt = $5, processor_id = $6, reference = $7, failure_code = $8,
    next_try_at = $9, attempted_at = $10, received_at = $11, settled_at = $12
WHERE tenant_id = $1 AND payment_id = $2;

-- name: payment_outcome_unknown
-- rows: none
-- params: tenant_id text, payment_id text, attempt integer, failure_code text
-- Why an attempt has no outcome yet; it is resumed when its lease ends.
UPDATE payment SET failure_code = $4
WHERE tenant_id = $1 AND payment_id = $2 AND attempt = $3 AND state = 'processing';

-- name: payment_grant
-- rows: maybe
-- params: tenant_id text, payment_id text
SELECT grant_id FROM credit_grant WHERE tenant_id = $1 AND payment_id = $2;

-- name: tenant_offset
-- rows: maybe
-- params: tenant_id text
SELECT clock_offset_ms FROM tenant WHERE tenant_id = $1;

-- name: webhook_keep
-- rows: none
-- params: processor text, event_id text, kind text, body jsonb, received_at timestamptz
INSERT INTO webhook_event (processor, event_id, kind, body, received_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING;
