-- Subscriptions and the periods that they are billed by. Instants are on the tenant's clock; `now` comes in real time.

-- name: billing_customer_locked
-- rows: maybe
-- params: tenant_id text, customer_id text
-- What a bill must know of a customer; the row lock puts subscriptions of one customer in a line.
SELECT c.customer_id, c.time_zone, c.collection, c.payment_terms_days, t.clock_offset_ms
FROM customer c JOIN tenant t USING (tenant_id)
WHERE c.tenant_id = $1 AND c.customer_id = $2 FOR NO KEY UPDATE OF c;

-- name: subscription_last
-- rows: maybe
-- params: tenant_id text, customer_id text
SELECT tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at, anchor_at, time_zone,
    cancel_at_end, ended_at, created_at, next_plan_code, next_plan_version, next_anchor_at, next_at, changed_at
FROM subscription WHERE tenant_id = $1 AND customer_id = $2 ORDER BY started_at DESC, subscription_id DESC LIMIT 1;

-- name: subscription_insert
-- rows: none
-- params: tenant_id text, subscription_id text, customer_id text, plan_code text, plan_version integer, started_at timestamptz, anchor_at timestamptz, time_zone text, created_at timestamptz
INSERT INTO subscription (tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at, anchor_at,
    time_zone, created_at)
VALUES ($1, $2, $3, $4, $5, 'active', $6, $7, $8, $9);

-- name: subscription_by_id
-- rows: maybe
-- params: tenant_id text, subscription_id text
SELECT tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at, anchor_at, time_zone,
    cancel_at_end, ended_at, created_at, next_plan_code, next_plan_version, next_anchor_at, next_at, changed_at
FROM subscription WHERE tenant_id = $1 AND subscription_id = $2;

-- name: subscription_locked
-- rows: maybe
-- params: tenant_id text, subscription_id text
SELECT tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at, anchor_at, time_zone,
    cancel_at_end, ended_at, created_at, next_plan_code, next_plan_version, next_anchor_at, next_at, changed_at
FROM subscription WHERE tenant_id = $1 AND subscription_id = $2 FOR UPDATE;

-- name: subscriptions_after
-- rows: many
-- params: tenant_id text, customer_id text, subscription_id text, count integer
-- In the order of their birth; an empty customer is any customer.
SELECT tenant_id, subscription_id, customer_id, plan_code, plan_version, state, started_at, anchor_at, time_zone,
    cancel_at_end, ended_at, created_at, next_plan_code, next_plan_version, next_anchor_at, next_at, changed_at
FROM subscription
WHERE tenant_id = $1 AND ($2 = '' OR customer_id = $2) AND subscription_id > $3
ORDER BY subscription_id LIMIT $4;

-- name: subscription_cancel_at_end
-- rows: none
-- params: tenant_id text, subscription_id text
-- A change that was asked for and has not come is dropped.
UPDATE subscription SET cancel_at_end = true, next_plan_code = NULL, next_plan_version = NULL, next_anchor_at = NULL, next_at = NULL
WHERE tenant_id = $1 AND subscription_id = $2 AND state = 'active';

-- name: subscription_change
-- rows: none
-- params: tenant_id text, subscription_id text, plan_code text, plan_version integer, anchor_at timestamptz, at timestamptz
-- Note the plan that follows and from when; nulls mean that none does.
UPDATE subscription SET next_plan_code = $3, next_plan_version = $4, next_anchor_at = $5, next_at = $6
WHERE tenant_id = $1 AND subscription_id = $2 AND state = 'active';

-- name: subscriptions_move
-- rows: none
-- params: tenant_id text, subscription_ids text[]
-- The plan that follows is the plan now.
UPDATE subscription SET plan_code = next_plan_code, plan_version = next_plan_version, anchor_at = next_anchor_at, changed_at = next_at,
    next_plan_code = NULL, next_plan_version = NULL, next_anchor_at = NULL, next_at = NULL
WHERE tenant_id = $1 AND subscription_id = ANY ($2::text[]) AND next_at IS NOT NULL;

-- name: period_cut
-- rows: none
-- params: tenant_id text, subscription_id text, end_at timestamptz
-- End the open period early.
UPDATE billing_period SET end_at = $3
WHERE tenant_id = $1 AND subscription_id = $2 AND state = 'open' AND start_at < $3 AND end_at > $3;

-- name: period_at_start
-- rows: maybe
-- params: tenant_id text, subscription_id text, start_at timestamptz
SELECT subscription_id, customer_id, start_at, end_at, plan_code, plan_version, anchor_at, state, closed_at, recorded_until, corrected_until
FROM billing_period WHERE tenant_id = $1 AND subscription_id = $2 AND start_at = $3;

-- name: subscriptions_end
-- rows: none
-- params: tenant_id text, subscription_ids text[], ended_ats timestamptz[]
UPDATE subscription AS s SET state = 'ended', ended_at = last.ended_at
FROM unnest($2::text[], $3::timestamptz[]) AS last (subscription_id, ended_at)
WHERE s.tenant_id = $1 AND s.subscription_id = last.subscription_id AND s.state = 'active';

-- name: periods_of_subscription
-- rows: many
-- params: tenant_id text, subscription_id text, start_at timestamptz, count integer
SELECT subscription_id, customer_id, start_at, end_at, plan_code, plan_version, anchor_at, state, closed_at, recorded_until, corrected_until
FROM billing_period WHERE tenant_id = $1 AND subscription_id = $2 AND start_at > $3 ORDER BY start_at LIMIT $4;

-- name: periods_open_of
-- rows: many
-- params: tenant_id text, subscription_ids text[]
SELECT subscription_id, customer_id, start_at, end_at, plan_code, plan_version, anchor_at, state, closed_at, recorded_until, corrected_until
FROM billing_period WHERE tenant_id = $1 AND subscription_id = ANY ($2::text[]) AND state = 'open' ORDER BY start_at;

-- name: tenants_with_due_periods
-- rows: many
-- params: now timestamptz
-- Whose clock has passed the end of an open period, all usage before that end being flushed.
SELECT t.tenant_id, t.clock_offset_ms,
    (least($1::timestamptz, drained.at) + t.clock_offset_ms * interval '1 millisecond')::timestamptz AS until_at
FROM tenant t, (SELECT greatest(min(drained_at), '1970-01-01Z') AS at FROM flush_lane) AS drained
WHERE EXISTS (
    SELECT FROM billing_period p WHERE p.tenant_id = t.tenant_id AND p.state = 'open'
        AND p.end_at <= least($1::timestamptz, drained.at) + t.clock_offset_ms * interval '1 millisecond')
ORDER BY t.tenant_id;

-- name: periods_due
-- rows: many
-- params: tenant_id text, until_at timestamptz, most integer
-- Open periods that have ended, those of one plan version and one end beside each other.
SELECT p.subscription_id, p.customer_id, p.start_at, p.end_at, p.plan_code, p.plan_version, p.anchor_at, s.time_zone
FROM billing_period p JOIN subscription s USING (tenant_id, subscription_id)
WHERE p.tenant_id = $1 AND p.state = 'open' AND p.end_at <= $2
ORDER BY p.end_at, p.plan_code, p.plan_version, p.customer_id
LIMIT $3;

-- name: close_cut
-- rows: one
-- params:
-- The cut: all that was recorded before it is committed. The lock waits for batches that are being written.
SELECT pg_advisory_xact_lock(7265108)::text AS lock, clock_timestamp() AS at;

-- name: subscriptions_for_close
-- rows: many
-- params: tenant_id text, subscription_ids text[], start_ats timestamptz[]
-- The subscriptions of these periods, locked, with what their bills must know; periods that are closed by now are left out.
SELECT s.subscription_id, s.customer_id, p.plan_code, p.plan_version, s.state, s.cancel_at_end, p.anchor_at, s.time_zone,
    s.next_plan_code, s.next_plan_version, s.next_anchor_at, s.next_at, p.start_at, p.end_at, c.collection, c.payment_terms_days
FROM unnest($2::text[], $3::timestamptz[]) AS asked (subscription_id, start_at)
JOIN billing_period p ON p.tenant_id = $1 AND p.subscription_id = asked.subscription_id AND p.start_at = asked.start_at
    AND p.state = 'open'
JOIN subscription s ON s.tenant_id = $1 AND s.subscription_id = asked.subscription_id
JOIN customer c ON c.tenant_id = $1 AND c.customer_id = s.customer_id
ORDER BY s.subscription_id
FOR UPDATE OF s, p;

-- name: periods_close
-- rows: none
-- params: tenant_id text, subscription_ids text[], start_ats timestamptz[], closed_at timestamptz, recorded_until timestamptz
UPDATE billing_period AS p SET state = 'closed', closed_at = $4, recorded_until = $5
FROM unnest($2::text[], $3::timestamptz[]) AS asked (subscription_id, start_at)
WHERE p.tenant_id = $1 AND p.subscription_id = asked.subscription_id AND p.start_at = asked.start_at AND p.state = 'open';

-- name: periods_open
-- rows: none
-- params: tenant_id text, subscription_ids text[], customer_ids text[], start_ats timestamptz[], end_ats timestamptz[], plan_codes text[], plan_versions integer[], anchor_ats timestamptz[]
-- Each follows the one that ends where it starts, where there is one.
INSERT INTO billing_period (tenant_id, subscription_id, customer_id, start_at, end_at, follows_at, plan_code, plan_version, anchor_at)
SELECT $1, next.subscription_id, next.customer_id, next.start_at, next.end_at, before.end_at, next.plan_code, next.plan_version, next.anchor_at
FROM unnest($2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::integer[], $8::timestamptz[])
    AS next (subscription_id, customer_id, start_at, end_at, plan_code, plan_version, anchor_at)
LEFT JOIN billing_period AS before ON before.tenant_id = $1 AND before.subscription_id = next.subscription_id
    AND before.end_at = next.start_at;

-- name: closed_cohorts
-- rows: many
-- params: tenant_id text, subscription_ids text[], ended_after timestamptz
-- Closed periods that may still get late events, by the day they ended on, with the bounds that make looking cheap.
SELECT date_trunc('day', end_at, 'UTC') AS ended_on, min(start_at) AS from_at, max(end_at) AS to_at,
    min(coalesce(corrected_until, recorded_until)) AS cut_at
FROM billing_period
WHERE tenant_id = $1 AND subscription_id = ANY ($2) AND state = 'closed' AND end_at > $3
GROUP BY 1 ORDER BY 1;

-- name: periods_with_late_events
-- rows: many
-- params: tenant_id text, subscription_ids text[], ended_on timestamptz, from_at timestamptz, to_at timestamptz, cut_at timestamptz, recorded_until timestamptz
-- Closed periods of one cohort for which something was recorded after their own cut.
WITH late AS MATERIALIZED (
    SELECT customer_id, event_at, max(recorded_at) AS recorded_at FROM usage_event
    WHERE tenant_id = $1 AND recorded_at > $6 AND recorded_at <= $7 AND event_at >= $4 AND event_at < $5
    GROUP BY customer_id, event_at
)
SELECT DISTINCT p.subscription_id, p.customer_id, p.start_at, p.end_at, p.plan_code, p.plan_version, p.anchor_at,
    s.time_zone, coalesce(p.corrected_until, p.recorded_until) AS cut_at
FROM late
JOIN billing_period p ON p.tenant_id = $1 AND p.customer_id = late.customer_id AND p.state = 'closed'
    AND p.subscription_id = ANY ($2) AND date_trunc('day', p.end_at, 'UTC') = $3::timestamptz
    AND late.event_at >= p.start_at AND late.event_at < p.end_at
    AND late.recorded_at > coalesce(p.corrected_until, p.recorded_until)
JOIN subscription s ON s.tenant_id = $1 AND s.subscription_id = p.subscription_id
ORDER BY p.subscription_id, p.start_at;

-- name: periods_corrected
-- rows: none
-- params: tenant_id text, subscription_ids text[], start_ats timestamptz[], corrected_until timestamptz
UPDATE billing_period AS p SET corrected_until = $4
FROM unnest($2::text[], $3::timestamptz[]) AS asked (subscription_id, start_at)
WHERE p.tenant_id = $1 AND p.subscription_id = asked.subscription_id AND p.start_at = asked.start_at AND p.state = 'closed';

-- name: snapshots_stale
-- rows: none
-- params: tenant_id text, customer_ids text[]
-- Have these customers projected anew.
INSERT INTO outbox (kind, tenant_id, customer_id)
SELECT 'snapshot', $1, changed.customer_id FROM unnest($2::text[]) AS changed (customer_id) ORDER BY changed.customer_id;
