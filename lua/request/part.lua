#!lua
-- part: charge what was used so far out of an open hold, and leave the rest held.
--
-- For streams, whose cost is known piece by piece: parts and the settlement at the end add up. Paid like a settlement: from
-- what the hold has set aside, then from the wallet as far as it goes; the rest is uncollected. Units that are counted are
-- held no longer. An answer key makes a part safe to repeat. If an allowed decision stands under it, then that attempt was
-- made after all, and the part gives way: nothing is charged. A refusal under it gives way to the part. If the attempt comes
-- later, it finds a decision that tells what the part has charged. So an attempt and its replay charge once, whichever
-- comes first.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   hold_key             the hold; it names the customer's other keys, in the same slot
--   shard_holds_key      deadlines of all holds of the shard
--   stream_key           usage stream of the shard
--   answer_key           first answer to this idempotency key (any name where the window is 0)
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   body                 of the entry, msgpack, naming the charges given here; "" the hold's own: the entry lists all its charges
--   ttl_ms               the deadline is at least so far from now; 0 leaves it
--   count                how many charges follow, 1 to 100
--   feature*             of each charge; named again, it means the next charge of that feature
--   quantity*            of each charge since the last part, 0 to 2^53 - 1
-- RETURNS
--   outcome              charged; decided: an allowed decision stands under the key; not_found, settled, released, expired or late: the hold is not open
--   replayed             1: this was answered to the idempotency key before, nothing happened now
--   at_ms                instant of the charge, or of the decision, on the tenant's clock (real clock where nothing was charged)
--   currency             of all amounts; "" where nothing is priced
--   charged_nanos        taken for good; of a decision its cost
--   held_nanos           that stay held
--   uncollected_nanos    cost that the wallet did not have
--   balance_nanos        usable and not held, after the part
--   deadline_ms          of the hold, on the real clock; 0 where nothing was charged here
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID ttl_ms       not a whole number, or a deadline beyond 2^53 - 1
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1
--   INVALID feature      the hold has no such charge; nothing is charged
--   UNAVAILABLE epoch    the shard is not built
--   OVERFLOW quantity    a counter or the cost would pass 2^53 - 1; nothing is charged
--   CONFLICT idempotency the key is known with another digest
-- INVARIANT
--   what was held before = what stays held + what left it for good
--   one key is charged once, by a part or by a decision; a refusal under it charges nothing and hinders nothing
--   an error writes nothing
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
--!include lib/decision/answer.lua

local epoch_key, hold_key, shard_holds_key, stream_key, answer_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local request_digest, idem_window_ms, body, ttl_ms, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- What a decision that stands under the key tells a part.
local function given_way(decision)
  return { 'decided', 1, decision[6], decision[7], decision[8], 0, 0, decision[9], 0 }
end

-- The part as the decision that an attempt under its key finds. The hold is not named: its id is a credential.
local function as_decision(answer, charges)
  local reply = { 'allowed', 0, 0, '', '', answer[3], answer[4], 0, answer[8], 0, '', 0, '' }
  for _, charge in ipairs(charges) do
    if charge.currency == answer[4] then reply[8] = reply[8] + charge.rated end
    local n, entitlement = #reply, charge.entitlement
    reply[n + 1], reply[n + 2], reply[n + 3], reply[n + 4], reply[n + 5] = -1, -1, 0, charge.rated, ''
    reply[n + 6], reply[n + 7] = charge.currency == '-' and '' or charge.currency, entitlement and entitlement[6] or 0
    reply[n + 8] = entitlement and entitlement[9] or ''
  end
  return reply
end

if #KEYS ~= 5 or #ARGV < 5 then return redis.error_reply('INVALID arguments') end
idem_window_ms, ttl_ms, count = whole(idem_window_ms), whole(ttl_ms), whole(count)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
local real_ms = real_now_ms()
if not ttl_ms or real_ms + ttl_ms > MAX_EXACT then return redis.error_reply('INVALID ttl_ms') end
if not count or count < 1 or count > MAX_CHARGES or #ARGV ~= 5 + 2 * count then
  return redis.error_reply('INVALID charges')
end
for index = 1, count do
  if not whole(ARGV[5 + 2 * index]) then return redis.error_reply('INVALID quantity') end
end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if idem_window_ms > 0 then
  local known, conflict = known_charge(answer_key, request_digest)
  if conflict then return redis.error_reply(conflict) end
  if known and not known[3] then return given_way(known[2]) end
  if known then
    known[3][2] = 1
    return known[3]
  end
end

local place = { stream = stream_key, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
local acts = hold_acts
local hold = acts.read(hold_key)
local state = hold and hold.state or 'not_found'
if state == 'open' and acts.is_due(hold, real_ms) then state = acts.expire(hold, place)[1] end
if state ~= 'open' then
  local answer = acts.empty_answer(state, real_ms)
  answer[9] = 0
  return answer
end
local charges = acts.held_charges(hold, true)
local named = acts.name_charges(charges, ARGV, 5, count)
if not named then return redis.error_reply('INVALID feature') end

local answer = acts.charge_part(hold, charges, place, { body = body, named = named, ttl_ms = ttl_ms })
if not answer then return redis.error_reply('OVERFLOW quantity') end
answer[9] = hold.deadline_ms
if idem_window_ms > 0 then
  remember(answer_key, request_digest, idem_window_ms, cmsgpack.pack(as_decision(answer, named)), answer)
end
return answer
