#!lua
-- extend: set more aside for an open hold, give it more time, or both; all of it or nothing.
--
-- More is decided like a hold, behind what is held already, in the currencies of the hold. Its place under a limit of
-- concurrency is what it has already. What is refused leaves the hold as it was. In shadow mode what would be
-- refused is not added and appends an entry of its own; a hold that shadow mode placed empty stays empty.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   hold_key             the hold; it names the customer's other keys, in the same slot
--   shard_holds_key      deadlines of all holds of the shard
--   answer_key           first answer to this idempotency key (any name where the window is 0)
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   refusal_ms           for which a refusal is kept at most; 0 keeps none
--   ttl_ms               the deadline is at least so far from now; 0 leaves it
--   count                how many charges follow, 0 to 100
--   feature*             of each charge; named again, it means the next charge of that feature
--   quantity*            more of each charge, 0 to 2^53 - 1
-- RETURNS packed
--   reason               allowed, or a refusal as of hold; not_found, settled, released, expired or late: the hold is not open
--   replayed             1: this is the first answer to the idempotency key, nothing happened now
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   level                that refused: customer, or a node of the path; "" where no level did
--   limit                counter that refused, at that level; "" none
--   at_ms                decision instant on the tenant's clock (real clock where the hold is not open)
--   currency             of the first charge that has a price; "" where nothing is priced
--   cost_nanos           of all charges in that currency, set aside now; what it would have been where the balance refused
--   balance_nanos        of that wallet, usable for that charge, after this decision; 0 where nothing is prepaid
--   deadline_ms          of the hold, real clock, also where it was not extended; 0 where the hold is not open
--   hold_id              of the hold, also where it was not extended; "" where the hold is not open
--   retry_after_ms       until the limit or rate that refused has room again; 0 unknown, or never
--   would                reason that shadow mode did not refuse for; "" none
--   limit_units*         of the tightest limit over all levels; -1 no limit
--   remaining_units*     of that limit, after this decision; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of that limit's window on the tenant's clock; 0 none
--   charge_nanos*        what is set aside for this charge now
--   static_value*        of a static feature, else ""
--   charge_currency*     of charge_nanos; "" where nothing is priced
--   outage_units*        how many units may be leased for an outage; 0 none
--   plan*                that the customer is on; "" none
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID refusal_ms   not a whole number below 2^53
--   INVALID ttl_ms       not a whole number, or a deadline beyond 2^53 - 1
--   INVALID charges      the count is not 0 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1, or the feature is a gauge
--   INVALID feature      the hold has no such charge
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter, a postpaid cost or the hold would pass 2^53 - 1
--   CONFLICT idempotency the key is known with another digest
-- INVARIANT
--   nanos that left `remaining` = nanos that came to `held` = sum of prepaid charge_nanos
--   a deadline is never moved to an earlier instant
--   a refusal writes nothing but its answer, and an error nothing at all, apart from the end of holds that were due
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
--!include lib/level/refusal.lua
--!include lib/level/pace.lua as pace_acts
--!include lib/level/cap.lua as cap_acts
--!include lib/level/life.lua as life_acts
--!include lib/level/level.lua
--!include lib/money/wallet.lua
--!include lib/decision/admit.lua
--!include lib/money/entry.lua
--!include lib/hold/placing.lua
--!include lib/decision/lateness.lua as late_acts
--!include lib/hold/hold.lua as hold_acts
--!include lib/hold/extension.lua
--!include lib/decision/answer.lua

local epoch_key, hold_key, shard_holds_key, answer_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local request_digest, idem_window_ms, refusal_ms, ttl_ms, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- The reply where nothing was decided.
local function undecided(charges, reason, terms)
  local decision = { reason = reason, at = terms.at, cost = 0, balance = 0, would = terms.would }
  return reply_of(decision, charges, terms.deadline_ms, terms.hold_id)
end

if #KEYS ~= 4 or #ARGV < 5 then return redis.error_reply('INVALID arguments') end
idem_window_ms, refusal_ms, ttl_ms = whole(idem_window_ms), whole(refusal_ms), whole(ttl_ms)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
if not refusal_ms then return redis.error_reply('INVALID refusal_ms') end
local real_ms = real_now_ms()
if not ttl_ms or real_ms + ttl_ms > MAX_EXACT then return redis.error_reply('INVALID ttl_ms') end
local charges, fault = NONE, nil
if whole(count) ~= 0 or #ARGV ~= 5 then charges, fault = read_charges(ARGV, 5) end
if fault then return redis.error_reply(fault) end
count = #charges
for _, charge in ipairs(charges) do
  if charge.sign then return redis.error_reply('INVALID quantity') end
end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if idem_window_ms > 0 then
  local answer, conflict = first_answer(answer_key, request_digest)
  if conflict then return redis.error_reply(conflict) end
  if answer then return answer end
end

local acts = hold_acts
local hold = acts.read(hold_key)
local state = hold and hold.state or 'not_found'
local place = { shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
if state == 'open' then
  place.stream, place.body = hold.stream, hold.body
  if acts.is_due(hold, real_ms) then state = acts.expire(hold, place)[1] end
end
if state ~= 'open' then
  return cmsgpack.pack(undecided(charges, state, { at = real_ms, would = '', deadline_ms = 0, hold_id = '' }))
end
local named, places = acts.name_charges(acts.held_charges(hold, true), ARGV, 5, count)
if not named then return redis.error_reply('INVALID feature') end
for index, charge in ipairs(charges) do charge.kept = hold.charges[places[index]] end
if acts.has_due(hold.customer_holds, real_ms) then acts.sweep_due(hold.customer_holds, place) end
place.snapshot, place.wallet, place.narrow = hold.snapshot, hold.wallet, narrow
local nodes = read_path(hold.path, hold.counters)
local decision = hold.would == '' and decide(charges, nodes, place, 'hold', hold.shadow == '1')
if decision and decision.fault then return redis.error_reply(decision.fault) end
if decision and decision.reason ~= 'allowed' then
  local reply = reply_of(decision, charges, hold.deadline_ms, hold.id)
  return keep_answer(answer_key, request_digest, idem_window_ms, refusal_ms, reply)
end
if not (decision and decision.would ~= '') and not add_charges(charges) then
  return redis.error_reply('OVERFLOW quantity')
end

acts.prolong(hold, place, ttl_ms)
if decision and decision.would == '' then
  decision.acted = true
  add_leases(hold, decision, charges, places)
  for _, grant_id in ipairs(decision.moved) do
    move(hold.wallet, 'r:' .. grant_id, -decision.moved[grant_id])
    move(hold.wallet, 'h:' .. grant_id, decision.moved[grant_id])
  end
  write_levels(nodes, decision.at, real_ms)
elseif decision then
  place.number = acts.next_number(hold)
  late_acts.append_shadow(decision, charges, place)
  hold.number = (hold.number or 0) + 1
end
acts.write(hold)
local reply
if decision then
  reply = reply_of(decision, charges, hold.deadline_ms, hold.id)
else
  local at = real_ms + (tonumber(redis.call('HGET', hold.snapshot, 'off')) or 0)
  reply = undecided(charges, 'allowed', { at = at, would = hold.would, deadline_ms = hold.deadline_ms, hold_id = hold.id })
end
return keep_answer(answer_key, request_digest, idem_window_ms, refusal_ms, reply)
