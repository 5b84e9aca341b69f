#!lua
-- sweep: end the holds of a shard that are due, for customers who are silent.
--
-- Each ends as it was told to: released, or settled as held. A hold whose charge can no longer be counted is released.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   shard_holds_key      deadlines of all holds of the shard
--   stream_key           usage stream of the shard
-- ARGV
--   most                 how many to end in one call, 1 to 1,000
-- RETURNS
--   ended_count          holds that were ended; fewer than `most`: nothing more is due
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID most         not a whole number from 1 to 1,000
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   no hold outlives its deadline by more than the pause between two sweeps
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/exact.lua
--!include lib/money/tariff.lua
--!include lib/value/window.lua
--!include lib/value/field.lua
--!include lib/value/path.lua
--!include lib/level/rolling.lua as rolling_acts
--!include lib/level/carry.lua as carry_acts
--!include lib/level/counter.lua
--!include lib/level/pace.lua as pace_acts
--!include lib/level/life.lua as life_acts
--!include lib/level/level.lua
--!include lib/money/wallet.lua
--!include lib/money/entry.lua
--!include lib/hold/hold.lua as hold_acts

local epoch_key, shard_holds_key, stream_key = KEYS[1], KEYS[2], KEYS[3]
local most = ARGV[1]

if #KEYS ~= 3 or #ARGV ~= 1 then return redis.error_reply('INVALID arguments') end
most = whole(most)
if not most or most < 1 or most > 1000 then return redis.error_reply('INVALID most') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local real_ms = real_now_ms()
local place = { stream = stream_key, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
local due = redis.call('ZRANGEBYSCORE', shard_holds_key, '-inf', digits(real_ms), 'LIMIT', '0', digits(most))
return hold_acts.sweep(due, shard_holds_key, place)
