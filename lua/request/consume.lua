#!lua
-- consume: charge one request, all of it or nothing.
--
-- A known idempotency key answers first. Then, in this order: suspended, entitlement of each feature, limit window of each
-- feature, wallet. Only when all have passed, units are counted, nanos leave the grants in burn order and the usage
-- entry is appended (none where every quantity is zero). Holds of this customer that are due end before the decision, at
-- most 100 in one call.
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
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   body                 of the entry, msgpack
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1
-- RETURNS
--   reason               allowed, suspended, not_entitled, limit_reached, insufficient_balance, or unavailable (no window)
--   replayed             1: this is the first answer to the idempotency key, nothing happened now
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   at_ms                decision instant on the tenant's clock
--   currency             of all amounts; "" where nothing is priced
--   cost_nanos           of all charges; what it would have cost where the balance refused
--   balance_nanos        usable and not held, after this decision; 0 where no balance was read
--   deadline_ms          0
--   hold_id              ""
--   limit_units*         -1 no limit
--   remaining_units*     of the limit, after this decision; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of the limit's window on the tenant's clock; 0 none
--   charge_nanos*        of this charge
--   static_value*        of a static feature, else ""
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID body         empty
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1
--   INVALID currency     the charges are priced in two currencies
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter would pass 2^53 - 1
--   CONFLICT idempotency the key is known with another digest
-- INVARIANT
--   nanos that left the grants = sum of charge_nanos = movements of the entry
--   the debits of a price in its period add up to floor(A(units)), to the nano
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

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local request_digest, idem_window_ms, body, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if #KEYS ~= 8 or #ARGV < 4 then return redis.error_reply('INVALID arguments') end
idem_window_ms = whole(idem_window_ms)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
if body == '' then return redis.error_reply('INVALID body') end
local charges, fault = read_charges(4)
if fault then return redis.error_reply(fault) end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if idem_window_ms > 0 then
  local answer, conflict = first_answer(answer_key, request_digest)
  if conflict then return redis.error_reply(conflict) end
  if answer then return answer end
end

local real_ms = real_now_ms()
local place = { stream = stream_key, shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms }
local due = redis.call('ZRANGEBYSCORE', customer_holds_key, '-inf', digits(real_ms), 'LIMIT', '0', '100')
if #due > 0 then hold_acts().sweep(due, customer_holds_key, place) end
local decision =
  decide(charges, real_ms, { snapshot = snapshot_key, counters = counters_key, wallet = wallet_key }, false)
if decision.fault then return redis.error_reply(decision.fault) end
if decision.reason ~= 'allowed' then return reply_of(decision, charges, 0, '') end

decision.acted = true
local parts = decision.purse and take(decision.purse, decision.cost) or {}
append_charges(stream_key, {
  kind = 'debit', body = body, at = decision.at, moved = parts, currency = decision.currency, epoch = epoch,
}, charges)
for _, part in ipairs(parts) do move(wallet_key, 'r:' .. part[1], -part[2]) end
write_counters(decision.counters)
local reply = reply_of(decision, charges, 0, '')
if idem_window_ms > 0 then remember(answer_key, request_digest, idem_window_ms, reply) end
return reply
