#!lua
-- ingest: record usage that did not pass the gate, once for each event id.
--
-- All events of a call are of one tenant, their ids of one shard, and they become one entry. An id is kept in the hash of the
-- span of 2^30 ms (12.4 days) in which it came, and looked for in each span that the window reaches into, and in the next
-- one, for a server that took over may be a little behind. So an id lives for the window at least, and at most a span longer;
-- a hash holds an id in less than half the memory that a key of its own would take, and takes many at once.
--
-- An event older than the window must not be sent here: it could be taken twice.
--
-- KEYS
--   epoch_key            epoch of the shard of the event ids; absent while it is not built
--   stream_key           usage stream of that shard
--   event_ids_key        how the names of the tenant's hashes of ids begin; the number of the span follows
-- ARGV
--   window_ms            for which an id is kept, at least 1
--   offset_ms            tenant's clock minus real clock: the shard does not have the customers' snapshots
--   body                 of the entry, msgpack: all the events
--   event_id*            in the order of the body
--   digest*              of the event's content
-- RETURNS
--   taken                a letter for each event: a accepted, d the same came before, c the id came before with other content
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments, or more than 1000 events
--   INVALID window_ms    not a whole number from 1 to 2^36 (two years)
--   INVALID offset_ms    not a whole number below 2^53
--   INVALID body         empty
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   one event for each event id within the window
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua

local epoch_key, stream_key, event_ids_key = KEYS[1], KEYS[2], KEYS[3]
local window_ms, offset_ms, body = ARGV[1], ARGV[2], ARGV[3]

local SPAN_MS, LONGEST_MS, MOST, FIRST = 1073741824, 68719476736, 1000, 4
local last = #ARGV
local count = (last - FIRST + 1) / 2
if #KEYS ~= 3 or count < 1 or count > MOST or count % 1 ~= 0 then return redis.error_reply('INVALID arguments') end
window_ms, offset_ms = whole(window_ms), whole(offset_ms)
if not window_ms or window_ms < 1 or window_ms > LONGEST_MS then return redis.error_reply('INVALID window_ms') end
if not offset_ms then return redis.error_reply('INVALID offset_ms') end
if body == '' then return redis.error_reply('INVALID body') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local now_ms = real_now_ms()
local span = math.floor(now_ms / SPAN_MS)
local ids, places = {}, { event_ids_key .. digits(span) }
for place = FIRST, last, 2 do ids[#ids + 1] = ARGV[place] end
for other = math.floor(math.max(0, now_ms - window_ms) / SPAN_MS), span + 1 do
  if other ~= span then places[#places + 1] = event_ids_key .. digits(other) end
end
if redis.call('EXISTS', unpack(places, 2)) == 0 then places = { places[1] } end
local digest_of = {}
for _, place in ipairs(places) do
  local known = redis.call('HMGET', place, unpack(ids))
  for index = 1, count do
    if known[index] then digest_of[ids[index]] = known[index] end
  end
end

local taken, fresh, left_out = {}, {}, {}
for index = 1, count do
  local id, digest = ids[index], ARGV[FIRST + 2 * index - 1]
  local known = digest_of[id]
  if not known then
    digest_of[id], taken[index] = digest, 'a'
    fresh[#fresh + 1] = id
    fresh[#fresh + 1] = digest
  else
    taken[index] = known == digest and 'd' or 'c'
    left_out[#left_out + 1] = digits(index - 1)
  end
end

if #fresh > 0 then
  local at = digits(now_ms + offset_ms)
  if #left_out == 0 then
    redis.call('XADD', stream_key, '*', 'k', 'event', 'b', body, 'at', at, 'e', epoch)
  else
    redis.call('XADD', stream_key, '*', 'k', 'event', 'b', body, 'at', at, 'e', epoch, 'd', table.concat(left_out, ' '))
  end
  redis.call('HSET', places[1], unpack(fresh))
  local until_ms = (span + 1) * SPAN_MS + window_ms
  if redis.call('PEXPIRETIME', places[1]) < until_ms then redis.call('PEXPIREAT', places[1], digits(until_ms)) end
end
return { table.concat(taken) }
