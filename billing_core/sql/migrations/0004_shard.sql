-- How far each shard's stream has reached Postgres, who reads it, and what still has to reach Redis.

CREATE TABLE shard (
    shard           integer PRIMARY KEY CHECK (shard BETWEEN 0 AND 1023),
    epoch           integer NOT NULL DEFAULT 1 CHECK (epoch > 0),
    watermark_ms    bigint NOT NULL DEFAULT 0,
    watermark_seq   bigint NOT NULL DEFAULT 0,
    recognized_ms   bigint NOT NULL DEFAULT 0,
    recognized_seq  bigint NOT NULL DEFAULT 0,
    CONSTRAINT "nothing is recognized before it is flushed"
        CHECK ((recognized_ms, recognized_seq) <= (watermark_ms, watermark_seq))
) WITH (fillfactor = 50);
INSERT INTO shard (shard) SELECT generate_series(0, 1023);

-- A lane is 64 shards, leased to one flusher. `drained_at` is Redis time: all that was decided before it is flushed.
CREATE TABLE flush_lane (
    lane         integer PRIMARY KEY CHECK (lane BETWEEN 0 AND 15),
    owner        text NOT NULL DEFAULT '',
    lease_until  timestamptz NOT NULL DEFAULT '-infinity',
    drained_at   timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
INSERT INTO flush_lane (lane) SELECT generate_series(0, 15);

-- How often the relay has told each shard something. Redis keeps the same count beside the shard's state: where it is
-- smaller there, a server has taken over that never got some of it. A row comes with the first thing told.
CREATE TABLE shard_told (
    shard  integer PRIMARY KEY CHECK (shard BETWEEN 0 AND 1023),
    told   bigint NOT NULL CHECK (told > 0)
) WITH (fillfactor = 50);

-- A server process that took over a shard (a replica that was promoted, or the same server from its disk), as the builder
-- found it: the last entry that it kept, the last one that was flushed by then, what it had been told less than it should
-- have. What callers were granted and is neither here nor there is lost, and named (`tenant:event`): it was decided behind
-- both places, and before `noticed_at`.
CREATE TABLE takeover (
    shard        integer NOT NULL CHECK (shard BETWEEN 0 AND 1023),
    noticed_at   timestamptz NOT NULL,
    kept_ms      bigint NOT NULL,
    kept_seq     bigint NOT NULL,
    flushed_ms   bigint NOT NULL,
    flushed_seq  bigint NOT NULL,
    missed_acts  bigint NOT NULL CHECK (missed_acts >= 0),
    lost_ids     text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (shard, noticed_at)
);
CREATE INDEX takeover_with_loss ON takeover (noticed_at) WHERE lost_ids <> '{}';

-- Flushers that are alive, so that each can tell its fair share of the lanes.
CREATE TABLE flusher (
    owner       text PRIMARY KEY,
    live_until  timestamptz NOT NULL
);

-- Written in the transaction of a change; the relay applies it to Redis idempotently and deletes it.
CREATE TABLE outbox (
    outbox_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('snapshot', 'grant', 'lapse', 'key', 'meters')),
    tenant_id    text NOT NULL,
    customer_id  text NOT NULL DEFAULT '',
    subject      text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    retry_at     timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX outbox_by_turn ON outbox (retry_at, outbox_id);
CREATE INDEX outbox_by_customer ON outbox (customer_id, tenant_id);

CREATE FUNCTION tell_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM fresh) THEN  -- a statement that inserted nothing fires too
        NOTIFY tallygate_outbox;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tell_outbox AFTER INSERT ON outbox REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION tell_outbox();
