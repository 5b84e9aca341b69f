#!lua
-- release: end a hold without charging anything.
--
-- What is still held goes back to its grants; what parts have charged is charged. After the deadline the hold ends as it was
-- told to, which may be a charge.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   hold_key             the hold; it names the customer's other keys, in the same slot
--   shard_holds_key      deadlines of all holds of the shard
-- ARGV
--   keep_ms              for which the answer is kept
-- RETURNS
--   outcome              released; settled, expired or late: it had ended so; not_found
--   replayed             1: the hold had ended before, this is the answer of its end
--   at_ms                instant of the end on the tenant's clock (real clock where nothing was found)
--   currency             of all amounts; "" where nothing is priced
--   charged_nanos        taken for good
--   released_nanos       of the hold, given back
--   uncollected_nanos    cost that the wallet did not have
--   balance_nanos        usable and not held, after the end
-- ERRORS
--   INVALID arguments    the wrong number of keys or arguments
--   INVALID keep_ms      not a whole number below 2^53
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   released_nanos = held nanos, where the outcome is released
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
--!include lib/plain/terms.lua as plain_acts
--!include lib/hold/straight_end.lua as straight_end

local epoch_key, hold_key, shard_holds_key = KEYS[1], KEYS[2], KEYS[3]
local keep_ms = ARGV[1]

if #KEYS ~= 3 or #ARGV ~= 1 then return redis.error_reply('INVALID arguments') end
keep_ms = whole(keep_ms)
if not keep_ms then return redis.error_reply('INVALID keep_ms') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local real_ms = real_now_ms()
local acts = hold_acts
local hold = acts.read(hold_key)
if not hold then return acts.empty_answer('not_found', real_ms) end
if hold.state ~= 'open' then return acts.ended_answer(hold) end
local place = { stream = hold.stream, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
if acts.is_due(hold, real_ms) then return acts.expire(hold, place) end
local ending = { outcome = 'released', digest = '', keep_ms = keep_ms, may_be_late = false }
return straight_end(hold, place, hold.charges[1][1], 0, ending)
  or acts.finish(hold, acts.held_charges(hold, true), place, ending)
