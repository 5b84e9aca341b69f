#!lua
-- hold: set an amount aside for work whose cost is not known yet.
--
-- Decided like consume, with the price of the units behind those already held, rounded up. The nanos move from remaining
-- to held, the units count against limits as held, the cost against spend caps, and while it is open the hold is one of
-- those that a concurrency limit allows. Nothing is charged before its end. It ends once: settled, released, or
-- expired at its deadline, which is on the server's real clock. In shadow mode a hold that would have been refused
-- is placed empty, so that its settlement finds it. A gauge cannot be held.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         of the customer; those of a budget node have this name, a slash and the node
--   wallet_key           grants
--   stream_key           usage stream of the shard
--   customer_holds_key   deadlines of this customer's holds
--   shard_holds_key      deadlines of all holds of the shard
--   answer_key           first answer to this idempotency key (any name where the window is 0)
--   hold_key             the new hold
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   refusal_ms           for which a refusal is kept at most; 0 keeps none
--   body                 of the entry that the end of the hold will append, msgpack
--   path                 budget levels below the customer, such as team:ml/key:k1; "" none
--   not_after_ms         real clock: later than this nothing is done; 0 never too late
--   shadow               1: record what would be refused, and refuse nothing; 0 as the snapshot says
--   hold_id              of the new hold
--   ttl_ms               until its deadline, at least 1
--   on_expiry            release, or charge: settle as held when nobody else does
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1
-- RETURNS packed
--   reason               allowed, or a refusal: see lib/decision/admit.lua; unavailable where it is too late or no window holds this instant
--   replayed             1: this is the first answer to the idempotency key, nothing happened now
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   level                that refused: customer, or a node of the path; "" where no level did
--   limit                counter that refused, at that level; "" none
--   at_ms                decision instant on the tenant's clock
--   currency             of the first charge that has a price; "" where nothing is priced
--   cost_nanos           of all charges in that currency, set aside; what it would have been where the balance refused
--   balance_nanos        of that wallet, usable for that charge, after this decision; 0 where nothing is prepaid
--   deadline_ms          real clock; 0 where the hold was refused
--   hold_id              of the hold that stands, on a replay that of the first answer; "" where refused
--   retry_after_ms       until the limit or rate that refused has room again; 0 unknown, or never
--   would                reason that shadow mode did not refuse for; "" none
--   limit_units*         of the tightest limit over all levels; -1 no limit
--   remaining_units*     of that limit, after this decision; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of that limit's window on the tenant's clock; 0 none
--   charge_nanos*        what this charge costs
--   static_value*        of a static feature, else ""
--   charge_currency*     of charge_nanos; "" where nothing is priced
--   outage_units*        how many units may be leased for an outage; 0 none
--   plan*                that the customer is on; "" none
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID refusal_ms   not a whole number below 2^53
--   INVALID body         empty
--   INVALID hold_id      empty, or not the one that hold_key names
--   INVALID ttl_ms       not a whole number from 1, or a deadline beyond 2^53 - 1
--   INVALID on_expiry    neither release nor charge
--   INVALID path         not team, project, user and key in this order, each `kind:name`
--   INVALID not_after_ms not a whole number below 2^53
--   INVALID shadow       neither 0 nor 1
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1, or the feature is a gauge
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter or a postpaid cost would pass 2^53 - 1
--   CONFLICT idempotency the key is known with another digest
--   CONFLICT hold        a hold of that id stands already
-- INVARIANT
--   nanos that left `remaining` = nanos that came to `held` = sum of prepaid charge_nanos
--   units held under a counter = sum over the open holds that name it
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
--!include lib/plain/terms.lua as plain_acts
--!include lib/plain/walk.lua as walk_acts
--!include lib/hold/straight.lua as straight_hold
--!include lib/decision/answer.lua

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key, hold_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local request_digest, idem_window_ms, refusal_ms, body, path, not_after_ms, shadow, hold_id, ttl_ms, on_expiry, count =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]

if #KEYS ~= 9 or #ARGV < 11 then return redis.error_reply('INVALID arguments') end
idem_window_ms, refusal_ms = whole(idem_window_ms), whole(refusal_ms)
not_after_ms, ttl_ms = whole(not_after_ms), whole(ttl_ms)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
if not refusal_ms then return redis.error_reply('INVALID refusal_ms') end
if body == '' then return redis.error_reply('INVALID body') end
if not not_after_ms then return redis.error_reply('INVALID not_after_ms') end
if shadow ~= '0' and shadow ~= '1' then return redis.error_reply('INVALID shadow') end
if hold_id == '' or hold_key ~= string.sub(shard_holds_key, 1, -2) .. ':' .. hold_id then
  return redis.error_reply('INVALID hold_id')
end
if on_expiry ~= 'release' and on_expiry ~= 'charge' then return redis.error_reply('INVALID on_expiry') end
local quantity, charges, fault = single_quantity(ARGV, 11), nil, nil
if not quantity then charges, fault = read_charges(ARGV, 11) end
if fault then return redis.error_reply(fault) end
local real_ms = real_now_ms()
if not ttl_ms or ttl_ms < 1 or real_ms + ttl_ms > MAX_EXACT then return redis.error_reply('INVALID ttl_ms') end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if idem_window_ms > 0 then
  local answer, conflict = first_answer(answer_key, request_digest)
  if conflict then return redis.error_reply(conflict) end
  if answer then return answer end
end
if path ~= '' and not path_names(path) then return redis.error_reply('INVALID path') end
if redis.call('EXISTS', hold_key) == 1 then return redis.error_reply('CONFLICT hold') end

local deadline_ms = real_ms + ttl_ms
local is_late = not_after_ms > 0 and real_ms > not_after_ms
local has_due = not is_late and hold_acts.has_due(customer_holds_key, real_ms)
local hold = {
  id = hold_id, state = 'open', deadline_ms = deadline_ms, on_expiry = on_expiry, snapshot = snapshot_key, counters = counters_key,
  wallet = wallet_key, customer_holds = customer_holds_key, stream = stream_key, body = body, path = path, shadow = shadow,
  would = '', level = '', currency = '', charges = false, leases = false,
}
if quantity and not is_late and not has_due then
  local packed = straight_hold(KEYS, ARGV[12], quantity, real_ms, hold)
  if packed and idem_window_ms > 0 then remember(answer_key, request_digest, idem_window_ms, packed) end
  if packed then return packed end
end

charges = charges or read_charges(ARGV, 11)
local place = {
  snapshot = snapshot_key, wallet = wallet_key, stream = stream_key, shard_holds = shard_holds_key, epoch = epoch,
  real_ms = real_ms, body = body,
}
if is_late then return late_acts.reply(charges, place) end
if has_due then hold_acts.sweep_due(customer_holds_key, place) end
local nodes = read_path(path, counters_key)
local decision = decide(charges, nodes, place, 'hold', shadow == '1')
if decision.fault then return redis.error_reply(decision.fault) end
if decision.reason ~= 'allowed' then
  return keep_answer(answer_key, request_digest, idem_window_ms, refusal_ms, reply_of(decision, charges, 0, ''))
end

local is_empty = decision.would ~= ''
if is_empty then
  late_acts.append_shadow(decision, charges, place)
else
  decision.acted = true
end
hold.would, hold.level = decision.would, is_empty and decision.refusal[2] or ''
hold.currency = decision.first and decision.first.currency or ''
redis.call('ZADD', shard_holds_key, digits(deadline_ms), hold_id)
redis.call('ZADD', customer_holds_key, digits(deadline_ms), hold_id)
place_hold(hold_key, hold, decision, charges)
if not is_empty then
  for _, grant_id in ipairs(decision.moved) do
    move(wallet_key, 'r:' .. grant_id, -decision.moved[grant_id])
    move(wallet_key, 'h:' .. grant_id, decision.moved[grant_id])
  end
  write_levels(nodes, decision.at, real_ms)
end
return keep_answer(answer_key, request_digest, idem_window_ms, refusal_ms, reply_of(decision, charges, deadline_ms, hold_id))
