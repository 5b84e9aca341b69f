-- Meters read usage events: one customer's period or many customers' periods in one pass (the arrays are in step:
-- customer, start, end). Only events recorded until a stated instant count, so that a bill can be replayed.
-- A value that the meter cannot read (no number, below zero, more digits than its scale) is left out and counted
-- apart. The digest is the sum of 60 bits of md5 of each event (`tenant:event:part:value`), so it does not depend on the
-- order. An expression over the measured value is worked out again wherever it stands, so it stands nowhere in vain: what
-- is joined with `||` is null where the value is.

-- name: meter_tally
-- rows: many
-- params: tenant_id text, event text, customer_ids text[], start_ats timestamptz[], end_ats timestamptz[], recorded_until timestamptz, aggregation text, field text, scale integer, group_by text[], wallets text[], first_at timestamptz, last_at timestamptz, is_one_span boolean
-- Where wallets are named, each has a reading of its own: of the events that it was asked to pay. What asked none of them
-- belongs to the first. `first_at` and `last_at` are the instants between which all spans lie. Where all are that span, no
-- events have to be told apart by time: one of the two ways is planned, the other falls away.
WITH meant AS (
    SELECT e.customer_id, $12::timestamptz AS start_at, e.tenant_id, e.event_id, e.part, e.quantity, e.properties, e.currency,
        e.charged_nanos, e.uncollected_nanos
    FROM usage_event e
    WHERE $14::boolean AND e.tenant_id = $1 AND e.name = $2 AND e.customer_id = ANY ($3::text[])
        AND e.recorded_at <= $6::timestamptz AND e.event_at >= $12::timestamptz AND e.event_at < $13::timestamptz
    UNION ALL
    SELECT e.customer_id, asked.start_at, e.tenant_id, e.event_id, e.part, e.quantity, e.properties, e.currency,
        e.charged_nanos, e.uncollected_nanos
    FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS asked (customer_id, start_at, end_at)
    JOIN usage_event e ON e.tenant_id = $1 AND e.name = $2 AND e.customer_id = asked.customer_id
        AND e.event_at >= asked.start_at AND e.event_at < asked.end_at
    WHERE NOT $14::boolean
        AND e.recorded_at <= $6::timestamptz AND e.event_at >= $12::timestamptz AND e.event_at < $13::timestamptz
), told AS (
    SELECT e.customer_id, e.start_at, e.tenant_id, e.event_id, e.part, e.charged_nanos, e.uncollected_nanos,
        CASE WHEN cardinality($11::text[]) = 0 THEN '' WHEN e.currency = ANY ($11::text[]) THEN e.currency ELSE $11[1] END AS wallet,
        cardinality($11::text[]) = 0 OR e.currency = ANY ($11::text[]) AS is_asked,
        CASE WHEN cardinality($10::text[]) = 0 THEN '{}'::jsonb ELSE (
            SELECT jsonb_object_agg(name, coalesce(e.properties ->> name, '')) FROM unnest($10::text[]) AS name
        ) END AS group_key,
        CASE
            WHEN $7::text = 'count' THEN 1
            WHEN $8::text = 'quantity' THEN CASE WHEN scale(e.quantity) <= $9::integer OR scale(trim_scale(e.quantity)) <= $9::integer THEN e.quantity END
            WHEN e.properties ->> $8::text ~ ('^[0-9]{1,15}([.][0-9]{0,' || $9::integer || '}0*)?$') THEN (e.properties ->> $8::text)::numeric
        END AS measured
    FROM meant e
)
SELECT customer_id, start_at, group_key, wallet,
    trim_scale(coalesce(CASE WHEN $7::text = 'max' THEN max(measured) ELSE sum(measured) END, 0)) AS quantity,
    count(measured) AS event_count,
    count(*) - count(measured) AS unreadable_count,
    coalesce(sum(('x' || substr(md5(tenant_id || ':' || event_id || ':' || part || ':' || trim_scale(measured)), 1, 15))::bit(60)::bigint),
        0)::text AS event_digest,
    coalesce(sum(charged_nanos) FILTER (WHERE is_asked), 0)::bigint AS charged_nanos,
    coalesce(sum(uncollected_nanos) FILTER (WHERE is_asked), 0)::bigint AS uncollected_nanos
FROM told
GROUP BY customer_id, start_at, group_key, wallet
ORDER BY customer_id, start_at, group_key, wallet;

-- name: meter_unique
-- rows: many
-- params: tenant_id text, event text, customer_ids text[], start_ats timestamptz[], end_ats timestamptz[], recorded_until timestamptz, field text, group_by text[]
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS span (customer_id, start_at, end_at)
), told AS (
    SELECT asked.customer_id, asked.start_at, e.tenant_id, e.event_id, e.part, e.charged_nanos, e.uncollected_nanos,
        CASE WHEN cardinality($8::text[]) = 0 THEN '{}'::jsonb ELSE (
            SELECT jsonb_object_agg(name, coalesce(e.properties ->> name, '')) FROM unnest($8::text[]) AS name
        ) END AS group_key,
        CASE WHEN $7::text = 'quantity' THEN trim_scale(e.quantity)::text ELSE nullif(e.properties ->> $7::text, '') END AS measured
    FROM asked JOIN usage_event e ON e.tenant_id = $1 AND e.name = $2 AND e.customer_id = asked.customer_id
        AND e.event_at >= asked.start_at AND e.event_at < asked.end_at
    WHERE e.recorded_at <= $6::timestamptz
        AND e.event_at >= (SELECT min(start_at) FROM asked) AND e.event_at < (SELECT max(end_at) FROM asked)
)
SELECT customer_id, start_at, group_key,
    count(DISTINCT measured)::numeric AS quantity,
    count(measured) AS event_count,
    count(*) - count(measured) AS unreadable_count,
    coalesce(sum(('x' || substr(md5(concat_ws(':', tenant_id, event_id, part, measured)), 1, 15))::bit(60)::bigint)
        FILTER (WHERE measured IS NOT NULL), 0)::text AS event_digest,
    sum(charged_nanos)::bigint AS charged_nanos,
    sum(uncollected_nanos)::bigint AS uncollected_nanos
FROM told
GROUP BY customer_id, start_at, group_key
ORDER BY customer_id, start_at, group_key;

-- name: meter_latest
-- rows: many
-- params: tenant_id text, event text, customer_ids text[], start_ats timestamptz[], end_ats timestamptz[], recorded_until timestamptz, field text, scale integer, group_by text[]
-- Of events at one instant the one that entered the streams last counts; the rest of the key only breaks ties.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($3::text[], $4::timestamptz[], $5::timestamptz[]) AS span (customer_id, start_at, end_at)
), told AS (
    SELECT asked.customer_id, asked.start_at, e.tenant_id, e.event_id, e.part, e.charged_nanos, e.uncollected_nanos,
        e.event_at, e.stream_ms, e.stream_seq, e.shard,
        CASE WHEN cardinality($9::text[]) = 0 THEN '{}'::jsonb ELSE (
            SELECT jsonb_object_agg(name, coalesce(e.properties ->> name, '')) FROM unnest($9::text[]) AS name
        ) END AS group_key,
        CASE
            WHEN $7::text = 'quantity' THEN CASE WHEN scale(e.quantity) <= $8::integer OR scale(trim_scale(e.quantity)) <= $8::integer THEN e.quantity END
            WHEN e.properties ->> $7::text ~ ('^[0-9]{1,15}([.][0-9]{0,' || $8::integer || '}0*)?$') THEN (e.properties ->> $7::text)::numeric
        END AS measured
    FROM asked JOIN usage_event e ON e.tenant_id = $1 AND e.name = $2 AND e.customer_id = asked.customer_id
        AND e.event_at >= asked.start_at AND e.event_at < asked.end_at
    WHERE e.recorded_at <= $6::timestamptz
        AND e.event_at >= (SELECT min(start_at) FROM asked) AND e.event_at < (SELECT max(end_at) FROM asked)
)
SELECT customer_id, start_at, group_key,
    trim_scale(coalesce((array_agg(measured ORDER BY event_at DESC, stream_ms DESC, stream_seq DESC, shard DESC, part DESC)
        FILTER (WHERE measured IS NOT NULL))[1], 0)) AS quantity,
    count(measured) AS event_count,
    count(*) - count(measured) AS unreadable_count,
    coalesce(sum(('x' || substr(md5(concat_ws(':', tenant_id, event_id, part, trim_scale(measured))), 1, 15))::bit(60)::bigint)
        FILTER (WHERE measured IS NOT NULL), 0)::text AS event_digest,
    sum(charged_nanos)::bigint AS charged_nanos,
    sum(uncollected_nanos)::bigint AS uncollected_nanos
FROM told
GROUP BY customer_id, start_at, group_key
ORDER BY customer_id, start_at, group_key;

-- name: metered_event_page
-- rows: many
-- params: tenant_id text, customer_id text, event text, start_at timestamptz, end_at timestamptz, recorded_until timestamptz, group_key jsonb, after_at timestamptz, after_shard integer, after_ms bigint, after_seq bigint, after_part integer, most integer, wallets text[], wallet text
-- The raw events behind a line, in the order of their time, from behind a place (-infinity and zeroes to begin).
SELECT e.event_id, e.part, e.name, e.source, e.event_at, e.recorded_at, trim_scale(e.quantity) AS quantity,
    coalesce(e.properties, '{}') AS properties, e.charged_nanos, e.uncollected_nanos, e.shard, e.stream_ms, e.stream_seq
FROM usage_event e
WHERE e.tenant_id = $1 AND e.customer_id = $2 AND e.name = $3
    AND e.event_at >= $4::timestamptz AND e.event_at < $5::timestamptz AND e.recorded_at <= $6::timestamptz
    AND NOT EXISTS (SELECT FROM jsonb_each_text($7::jsonb) AS named WHERE coalesce(e.properties ->> named.key, '') <> named.value)
    AND (cardinality($14::text[]) = 0 OR $15 = CASE WHEN e.currency = ANY ($14::text[]) THEN e.currency ELSE $14[1] END)
    AND (e.event_at, e.shard, e.stream_ms, e.stream_seq, e.part) > ($8::timestamptz, $9::integer, $10::bigint, $11::bigint, $12::integer)
ORDER BY e.event_at, e.shard, e.stream_ms, e.stream_seq, e.part
LIMIT $13::integer;

-- name: usage_charges
-- rows: many
-- params: tenant_id text, event text, customer_id text, start_at timestamptz, end_at timestamptz, group_by text[]
-- What wallets paid for events and could not pay, each currency and unit for itself.
SELECT CASE WHEN cardinality($6::text[]) = 0 THEN '{}'::jsonb ELSE (
        SELECT jsonb_object_agg(name, coalesce(e.properties ->> name, '')) FROM unnest($6::text[]) AS name
    ) END AS group_key,
    e.currency, sum(e.charged_nanos)::bigint AS charged_nanos, sum(e.uncollected_nanos)::bigint AS uncollected_nanos
FROM usage_event e
WHERE e.tenant_id = $1 AND e.name = $2 AND e.customer_id = $3 AND e.event_at >= $4 AND e.event_at < $5
    AND (e.charged_nanos > 0 OR e.uncollected_nanos > 0)
GROUP BY 1, e.currency ORDER BY e.currency;

-- name: plans_fresh
-- rows: none
-- params:
-- Plan each query of this transaction for the values at hand: one customer and ten thousand are read differently. Events
-- are added up in memory, without being sorted first.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('work_mem', '64MB', true);

-- name: plans_kept
-- rows: none
-- params:
-- Plan each query of this transaction once, by index: the checks of foreign keys above all, which are queries row by row.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true);
