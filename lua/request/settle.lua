#!lua
-- settle: end a hold at the quantities that the work really took.
--
-- At or below the hold, what was not used goes back in the reverse order of taking. Above it, the wallet pays as far
-- as it can; the rest is uncollected, and the usage entry tells the full quantity. Limits do not refuse work that
-- was done, nor does a suspension. What parts have charged before is charged: the quantities here are what was used
-- since. After the deadline the hold has ended as it was told to. Where that was a release, a settlement within a day
-- (and in the same epoch) is late: it is charged anew, as far as the wallet goes, and the rest is uncollected.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   hold_key             the hold; it names the customer's other keys, in the same slot
--   shard_holds_key      deadlines of all holds of the shard
--   stream_key           usage stream of the shard
-- ARGV
--   request_digest       of this settle; another one after it is a conflict
--   keep_ms              for which the answer is kept
--   body                 of the entry, msgpack, naming all charges of the hold; "" the hold's own
--   count                how many charges follow, 0 to 100; a feature that is not named settles as held, or as it was held
--   feature*             of each charge; named again, it means the next charge of that feature; of a single one "": the first
--   quantity*            of each charge, 0 to 2^53 - 1
-- RETURNS
--   outcome              settled; late: expired before; released or expired: it had ended so; conflict: settled with another digest; not_found
--   replayed             1: the hold had ended before, this is the answer of its end
--   at_ms                instant of the end on the tenant's clock (real clock where nothing was found)
--   currency             of all amounts; "" where nothing is priced
--   charged_nanos        taken for good
--   released_nanos       of the hold, given back
--   uncollected_nanos    cost that the wallet did not have
--   balance_nanos        usable and not held, after the end
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID keep_ms      not a whole number below 2^53
--   INVALID charges      the count is not 0 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1
--   INVALID feature      the hold has no such charge; the hold stays as it is
--   UNAVAILABLE epoch    the shard is not built
--   OVERFLOW quantity    a counter or the cost would pass 2^53 - 1; the hold stays open, or expired
-- INVARIANT
--   charged_nanos + released_nanos = held nanos + what was taken beyond them
--   charged_nanos + uncollected_nanos = floor(A(u + q)) - floor(A(u)) over all charges
--   of concurrent settles exactly one ends the hold, and of late ones exactly one is charged
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

local epoch_key, hold_key, shard_holds_key, stream_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local request_digest, keep_ms, body, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 4 or #ARGV < 4 then return redis.error_reply('INVALID arguments') end
keep_ms, count = whole(keep_ms), whole(count)
if not keep_ms then return redis.error_reply('INVALID keep_ms') end
if not count or count > MAX_CHARGES or #ARGV ~= 4 + 2 * count then
  return redis.error_reply('INVALID charges')
end
for index = 1, count do
  if not whole(ARGV[4 + 2 * index]) then return redis.error_reply('INVALID quantity') end
end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end

local real_ms = real_now_ms()
local place = { stream = stream_key, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
local acts = hold_acts
local hold = acts.read(hold_key)
if not hold then return acts.empty_answer('not_found', real_ms) end
if not hold.charges or hold.epoch and hold.epoch ~= epoch then
  local is_settled = hold.state == 'settled' or hold.state == 'late'
  if is_settled and hold.digest ~= request_digest then return acts.empty_answer('conflict', real_ms) end
  return acts.ended_answer(hold)
end
if count == 1 and ARGV[5] == '' then ARGV[5] = hold.charges[1][1] end
local ending = {
  outcome = hold.state == 'open' and 'settled' or 'late', digest = request_digest, keep_ms = keep_ms, may_be_late = false,
  body = body ~= '' and body or nil,
}
local is_due = hold.state == 'open' and acts.is_due(hold, real_ms)
if count == 1 and hold.state == 'open' and not is_due then
  local answer = straight_end(hold, place, ARGV[5], whole(ARGV[6]), ending)
  if answer then return answer end
end
local charges = acts.held_charges(hold, false)
if not acts.name_charges(charges, ARGV, 4, count) then return redis.error_reply('INVALID feature') end
if is_due then
  local ended = acts.expire(hold, place)
  hold = acts.read(hold_key)
  if not hold.charges then return ended end
  charges = acts.held_charges(hold, false)
  acts.name_charges(charges, ARGV, 4, count)
  ending.outcome = 'late'
end

return acts.finish(hold, charges, place, ending) or redis.error_reply('OVERFLOW quantity')
