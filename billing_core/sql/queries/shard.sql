-- name: flusher_report
-- rows: none
-- params: owner text, lease_ms bigint
INSERT INTO flusher (owner, live_until) VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
ON CONFLICT (owner) DO UPDATE SET live_until = EXCLUDED.live_until;

-- name: flusher_bury
-- rows: none
-- params:
DELETE FROM flusher WHERE live_until < clock_timestamp();

-- name: flusher_count
-- rows: one
-- params:
SELECT count(*) AS count FROM flusher WHERE live_until >= clock_timestamp();

-- name: flusher_leave
-- rows: none
-- params: owner text
DELETE FROM flusher WHERE owner = $1;

-- name: lanes_renew
-- rows: many
-- params: owner text, lease_ms bigint
UPDATE flush_lane SET lease_until = clock_timestamp() + $2 * interval '1 millisecond'
WHERE owner = $1
RETURNING lane;

-- name: lanes_take
-- rows: many
-- params: owner text, lease_ms bigint, most integer
WITH free AS (
    SELECT lane FROM flush_lane
    WHERE owner = '' OR lease_until < clock_timestamp()
    ORDER BY lane
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
UPDATE flush_lane l SET owner = $1, lease_until = clock_timestamp() + $2 * interval '1 millisecond'
FROM free WHERE l.lane = free.lane
RETURNING l.lane;

-- name: lanes_release
-- rows: none
-- params: owner text, lanes integer[]
UPDATE flush_lane SET owner = '', lease_until = '-infinity' WHERE owner = $1 AND lane = ANY ($2);

-- name: lanes_drained
-- rows: none
-- params: owner text, lanes integer[], lease_ms bigint, drained_at timestamptz
UPDATE flush_lane SET drained_at = greatest(drained_at, $4), lease_until = clock_timestamp() + $3 * interval '1 millisecond'
WHERE owner = $1 AND lane = ANY ($2);

-- name: drained_at
-- rows: one
-- params:
-- Redis time up to which everything that was decided is in these tables; none until every lane was drained once.
SELECT nullif(min(drained_at), '-infinity') AS drained_at FROM flush_lane;

-- name: watermarks
-- rows: many
-- params: shards integer[]
SELECT shard, watermark_ms, watermark_seq FROM shard WHERE shard = ANY ($1) ORDER BY shard;

-- name: batch_open
-- rows: one
-- params: owner text, lanes integer[], lease_ms bigint, drained_at timestamptz, shards integer[], from_ms bigint[], from_seq bigint[], to_ms bigint[], to_seq bigint[]
-- The first words of a batch: the lanes are still ours, the marks move from where we read, and the instant of the rows.
-- Who falls asleep within the transaction keeps its rows locked no longer than its lease.
WITH lanes AS (
    UPDATE flush_lane SET lease_until = clock_timestamp() + $3 * interval '1 millisecond',
                          drained_at = greatest(drained_at, $4)
    WHERE owner = $1 AND lane = ANY ($2)
    RETURNING lane
), marks AS (
    UPDATE shard s SET watermark_ms = m.to_ms, watermark_seq = m.to_seq
    FROM unnest($5::integer[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[]) AS m (shard, from_ms, from_seq, to_ms, to_seq)
    WHERE s.shard = m.shard AND s.watermark_ms = m.from_ms AND s.watermark_seq = m.from_seq
    RETURNING s.shard
)
SELECT (SELECT count(*) FROM lanes) AS lane_count, (SELECT count(*) FROM marks) AS shard_count,
       recording_instant() AS recorded_at, set_config('idle_in_transaction_session_timeout', $3::text, true) AS asleep_ms;

-- name: shards
-- rows: many
-- params: shards integer[]
SELECT s.shard, s.epoch, s.watermark_ms, s.watermark_seq,
       EXISTS (SELECT FROM customer c WHERE c.shard = s.shard) AS is_inhabited
FROM shard s WHERE s.shard = ANY ($1) ORDER BY s.shard;

-- name: shards_raise_epoch
-- rows: many
-- params: shards integer[]
WITH held AS (SELECT shard FROM shard WHERE shard = ANY ($1) ORDER BY shard FOR NO KEY UPDATE)
UPDATE shard s SET epoch = s.epoch + 1 FROM held WHERE s.shard = held.shard
RETURNING s.shard, s.epoch, s.watermark_ms, s.watermark_seq, true AS is_inhabited;

-- name: lanes_held
-- rows: many
-- params: owner text
SELECT lane FROM flush_lane WHERE owner = $1 ORDER BY lane FOR NO KEY UPDATE;

-- name: lanes_revoke
-- rows: none
-- params:
-- Whoever has read something before this must read it anew. Waits for the batches that are being committed.
UPDATE flush_lane SET owner = '', lease_until = '-infinity';

-- name: shard_tell
-- rows: none
-- params: shards integer[], told bigint[]
INSERT INTO shard_told (shard, told) SELECT shard, told FROM unnest($1::integer[], $2::bigint[]) AS t (shard, told) ORDER BY shard
ON CONFLICT (shard) DO UPDATE SET told = greatest(shard_told.told, EXCLUDED.told);

-- name: shards_told
-- rows: many
-- params:
SELECT shard, told FROM shard_told ORDER BY shard;

-- name: takeover_note
-- rows: none
-- params: shards integer[], noticed_at timestamptz, kept_ms bigint[], kept_seq bigint[], flushed_ms bigint[], flushed_seq bigint[], missed_acts bigint[]
INSERT INTO takeover (shard, noticed_at, kept_ms, kept_seq, flushed_ms, flushed_seq, missed_acts)
SELECT shard, $2, kept_ms, kept_seq, flushed_ms, flushed_seq, missed_acts
FROM unnest($1::integer[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
     AS t (shard, kept_ms, kept_seq, flushed_ms, flushed_seq, missed_acts)
ON CONFLICT DO NOTHING;

-- name: takeover_forget
-- rows: none
-- params: before timestamptz
-- What cost nothing and is long over.
DELETE FROM takeover WHERE noticed_at < $1 AND lost_ids = '{}' AND missed_acts = 0 AND (kept_ms, kept_seq) >= (flushed_ms, flushed_seq);

-- name: takeover_lost
-- rows: none
-- params: shard integer, answered text[], since_ms bigint
-- Of what gateways have answered, what is not there although everything of the stream is: lost by the latest takeover.
WITH missing AS (
    SELECT name FROM unnest($2::text[]) AS answered (name)
    EXCEPT
    SELECT tenant_id || ':' || event_id FROM usage_event WHERE shard = $1 AND stream_ms >= $3
), latest AS (
    SELECT noticed_at FROM takeover WHERE shard = $1 ORDER BY noticed_at DESC LIMIT 1
)
UPDATE takeover t
SET lost_ids = ARRAY(SELECT name FROM missing UNION SELECT unnest(t.lost_ids) ORDER BY 1)
FROM latest WHERE t.shard = $1 AND t.noticed_at = latest.noticed_at AND EXISTS (SELECT FROM missing);

-- name: lost_count
-- rows: one
-- params:
SELECT coalesce(sum(cardinality(lost_ids)), 0)::bigint AS count FROM takeover WHERE lost_ids <> '{}';

-- name: takeovers_that_cost
-- rows: many
-- params:
SELECT shard, noticed_at, kept_ms, kept_seq, flushed_ms, flushed_seq, missed_acts, lost_ids
FROM takeover
WHERE lost_ids <> '{}' OR missed_acts > 0 OR (kept_ms, kept_seq) < (flushed_ms, flushed_seq)
ORDER BY noticed_at, shard;
