-- Raw usage, by month of the event. The key is the place in the stream: a flush can be repeated, not doubled. The quantity
-- of a gauge is the customer's new level. `rated_nanos` is what the gate priced it at: charged and uncollected of a prepaid
-- price, the whole of any other.

CREATE TABLE usage_event (
    shard             integer NOT NULL,
    stream_ms         bigint NOT NULL,
    stream_seq        bigint NOT NULL,
    part              integer NOT NULL,
    tenant_id         text NOT NULL,
    customer_id       text NOT NULL,
    event_id          text NOT NULL,
    name              text NOT NULL,
    source            text NOT NULL CHECK (source IN ('gate', 'client')),
    event_at          timestamptz NOT NULL,
    decided_at        timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL,
    quantity          numeric NOT NULL DEFAULT 1 CHECK (quantity >= 0),
    properties        jsonb,
    currency          text NOT NULL DEFAULT '',
    charged_nanos     bigint NOT NULL DEFAULT 0 CHECK (charged_nanos >= 0),
    uncollected_nanos bigint NOT NULL DEFAULT 0 CHECK (uncollected_nanos >= 0),
    rated_nanos       bigint NOT NULL DEFAULT 0 CHECK (rated_nanos >= 0),
    key_hint          text NOT NULL DEFAULT '',
    path              text NOT NULL DEFAULT '',
    PRIMARY KEY (shard, stream_ms, stream_seq, part, event_at)
) PARTITION BY RANGE (event_at);
CREATE INDEX usage_event_by_customer ON usage_event (tenant_id, customer_id, name, event_at);
CREATE TABLE usage_event_elsewhen PARTITION OF usage_event DEFAULT;

-- The partition of the month that holds the instant, made if it is not there and nothing of it went elsewhere.
CREATE FUNCTION ensure_usage_month(instant timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_at timestamptz := date_trunc('month', instant, 'UTC');
    next_at  timestamptz := date_trunc('month', instant, 'UTC') + interval '1 month';
    partition_name text := 'usage_event_' || to_char(first_at AT TIME ZONE 'UTC', 'YYYYMM');
BEGIN
    IF to_regclass(partition_name) IS NOT NULL THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_usage_month'));
    -- Not to_regclass again: its cache may not have heard yet of what was committed while we waited.
    IF EXISTS (SELECT FROM pg_class WHERE relname = partition_name) THEN RETURN; END IF;
    IF EXISTS (SELECT FROM usage_event_elsewhen WHERE event_at >= first_at AND event_at < next_at) THEN RETURN; END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF usage_event FOR VALUES FROM (%L) TO (%L)', partition_name, first_at, next_at);
END $$;

-- What shadow mode would have refused, one row for each charge of the request: it was let through, and nothing was charged.
CREATE TABLE shadow_decision (
    shard        integer NOT NULL,
    stream_ms    bigint NOT NULL,
    stream_seq   bigint NOT NULL,
    part         integer NOT NULL,
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL,
    decision_id  text NOT NULL,
    feature      text NOT NULL,
    quantity     bigint NOT NULL,
    decided_at   timestamptz NOT NULL,
    reason       text NOT NULL,
    level        text NOT NULL,
    path         text NOT NULL,
    key_hint     text NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (shard, stream_ms, stream_seq, part)
);
CREATE INDEX shadow_decision_by_time ON shadow_decision (tenant_id, decided_at, shard, stream_ms, stream_seq, part);

-- An entry that cannot be written: kept whole, out of the way of the others, and named by every reconcile.
CREATE TABLE parked_entry (
    shard        integer NOT NULL,
    stream_ms    bigint NOT NULL,
    stream_seq   bigint NOT NULL,
    tenant_id    text NOT NULL,
    reason       text NOT NULL,
    fields       bytea[] NOT NULL,
    recorded_at  timestamptz NOT NULL,
    PRIMARY KEY (shard, stream_ms, stream_seq)
);

-- The instant that rows of this transaction carry: taken under the lock that a close holds while it cuts, so that what
-- was recorded before a cut is all committed before it.
CREATE FUNCTION recording_instant() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7265108);
    RETURN clock_timestamp();
END $$;
