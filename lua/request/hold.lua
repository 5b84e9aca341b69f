#!lua
-- hold: set an amount aside for work whose cost is not known yet.
--
-- Decided like consume, with the price of the units behind those already held, rounded up. The nanos move from
-- remaining to held, the units count against limits as held, and nothing is charged before the end of the hold. The
-- hold ends once: settled, released, or expired at its deadline, which is on the server's real clock.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         used and held units
--   wallet_key           grants
--   stream_key           usage stream of the shard
--   customer_holds_key   deadlines of this customer's holds
--   shard_holds_key      deadlines of all holds of the shard
--   answer_key           first answer to this idempotency key (any name where the window is 0)
--   hold_key             the new hold
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   body                 of the entry that the end of the hold will append, msgpack
--   hold_id              of the new hold
--   ttl_ms               until its deadline, at least 1
--   on_expiry            release, or charge: settle as held when nobody else does
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1
-- RETURNS
--   reason               allowed, suspended, not_entitled, limit_reached, insufficient_balance, or unavailable (no window)
--   replayed             1: this is the first answer to the idempotency key, nothing happened now
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   at_ms                decision instant on the tenant's clock
--   currency             of all amounts; "" where nothing is priced
--   cost_nanos           of all charges, set aside; what it would have been where the balance refused
--   balance_nanos        usable and not held, after this decision; 0 where no balance was read
--   deadline_ms          real clock; 0 where the hold was refused
--   hold_id              of the hold that stands, on a replay that of the first answer; "" where refused
--   limit_units*         -1 no limit
--   remaining_units*     of the limit, after this decision; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of the limit's window on the tenant's clock; 0 none
--   charge_nanos*        of this charge
--   static_value*        of a static feature, else ""
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID body         empty
--   INVALID hold_id      empty, or not the one that hold_key names
--   INVALID ttl_ms       not a whole number from 1, or a deadline beyond 2^53 - 1
--   INVALID on_expiry    neither release nor charge
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1
--   INVALID currency     the charges are priced in two currencies
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter would pass 2^53 - 1
--   CONFLICT idempotency the key is known with another digest
--   CONFLICT hold        a hold of that id stands already
-- INVARIANT
--   nanos that left `remaining` = nanos that came to `held` = cost_nanos
--   units held of a feature = sum over its open holds
--   a refusal and an error write nothing, but for the end of holds that were due
--!include lib/number.lua
--!include lib/exact.lua
--!include lib/tariff.lua
--!include lib/window.lua
--!include lib/counter.lua
--!include lib/wallet.lua
--!include lib/admit.lua
--!include lib/entry.lua
--!include lib/hold.lua as hold_acts
--!include lib/answer.lua

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key, hold_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local request_digest, idem_window_ms, body, hold_id, ttl_ms, on_expiry, count =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

if #KEYS ~= 9 or #ARGV < 7 then return redis.error_reply('INVALID arguments') end
idem_window_ms, ttl_ms = whole(idem_window_ms), whole(ttl_ms)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
if body == '' then return redis.error_reply('INVALID body') end
if hold_id == '' or hold_key ~= string.sub(shard_holds_key, 1, -2) .. ':' .. hold_id then
  return redis.error_reply('INVALID hold_id')
end
if on_expiry ~= 'release' and on_expiry ~= 'charge' then return redis.error_reply('INVALID on_expiry') end
local charges, fault = read_charges(7)
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
if redis.call('EXISTS', hold_key) == 1 then return redis.error_reply('CONFLICT hold') end

local place = { stream = stream_key, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
local due = redis.call('ZRANGEBYSCORE', customer_holds_key, '-inf', digits(real_ms), 'LIMIT', '0', '100')
if #due > 0 then hold_acts().sweep(due, customer_holds_key, place) end
local decision =
  decide(charges, real_ms, { snapshot = snapshot_key, counters = counters_key, wallet = wallet_key }, true)
if decision.fault then return redis.error_reply(decision.fault) end
if decision.reason ~= 'allowed' then return reply_of(decision, charges, 0, '') end

decision.acted = true
local parts = decision.purse and take(decision.purse, decision.cost) or {}
local deadline_text, features, promised = digits(real_ms + ttl_ms), {}, {}
for index, charge in ipairs(charges) do
  features[index] = charge.feature
  if charge.tariff then
    promised[#promised + 1], promised[#promised + 2] = 'promised:' .. index, charge.packed
  end
end
redis.call('ZADD', shard_holds_key, deadline_text, hold_id)
redis.call('ZADD', customer_holds_key, deadline_text, hold_id)
redis.call('HSET', hold_key, 'id', hold_id, 'state', 'open', 'deadline_ms', deadline_text, 'on_expiry', on_expiry,
  'snapshot', snapshot_key, 'counters', counters_key, 'wallet', wallet_key, 'customer_holds', customer_holds_key,
  'stream', stream_key, 'body', body, 'currency', decision.currency, 'features', table.concat(features, ' '),
  'quantities', column(charges, 'quantity'), 'parts', parts_text(parts), unpack(promised))
for _, part in ipairs(parts) do
  move(wallet_key, 'r:' .. part[1], -part[2])
  move(wallet_key, 'h:' .. part[1], part[2])
end
write_counters(decision.counters)
local reply = reply_of(decision, charges, real_ms + ttl_ms, hold_id)
if idem_window_ms > 0 then remember(answer_key, request_digest, idem_window_ms, reply) end
return reply
