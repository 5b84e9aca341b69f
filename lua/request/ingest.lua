#!lua
-- ingest: record usage that did not pass the gate, once for each event id.
--
-- The id is kept for a stated window. An event older than that window must not be sent here: it could be taken twice.
--
-- KEYS
--   epoch_key            epoch of the shard of the event id; absent while it is not built
--   stream_key           usage stream of that shard
--   event_id_key         the mark that the id is taken
-- ARGV
--   digest               of the event's content
--   window_ms            for which the id is kept, at least 1
--   body                 of the entry, msgpack
--   offset_ms            tenant's clock minus real clock: the event's shard does not have the customer's snapshot
-- RETURNS
--   accepted             1 accepted, 0 the same event came before, -1 the id came before with other content
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID window_ms    not a whole number from 1 to 2^53 - 1
--   INVALID body         empty
--   INVALID offset_ms    not a whole number below 2^53
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   one entry for each event id within the window
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua

local epoch_key, stream_key, event_id_key = KEYS[1], KEYS[2], KEYS[3]
local digest, window_ms, body, offset_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 3 or #ARGV ~= 4 then return redis.error_reply('INVALID arguments') end
window_ms, offset_ms = whole(window_ms), whole(offset_ms)
if not window_ms or window_ms < 1 then return redis.error_reply('INVALID window_ms') end
if body == '' then return redis.error_reply('INVALID body') end
if not offset_ms then return redis.error_reply('INVALID offset_ms') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
local known = redis.call('GET', event_id_key)
if known then return known == digest and 0 or -1 end

redis.call('XADD', stream_key, '*', 'k', 'event', 'b', body, 'at', digits(real_now_ms() + offset_ms), 'e', epoch)
redis.call('SET', event_id_key, digest, 'PX', digits(window_ms))
return 1
