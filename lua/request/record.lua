#!lua
-- record: charge usage that has happened already. It is never refused.
--
-- Counted and charged like consume, whatever the customer may do: suspended, without the feature, over limits and caps,
-- and beyond what the wallets have. What a wallet lacks is uncollected and told in the entry, as is a charge that no
-- tariff prices. Rates and concurrency guard the door, which this usage did not pass: they are not looked at. Nor is a refusal
-- that stands under the idempotency key.
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
-- ARGV
--   request_digest       what the idempotency key stands for
--   idem_window_ms       for which the answer is kept; 0 keeps none
--   body                 of the entry, msgpack
--   path                 budget levels below the customer, such as team:ml/key:k1; "" none
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1; of a gauge also -n (less) and =n (set)
-- RETURNS packed
--   reason               allowed
--   replayed             1: this is the first answer to the idempotency key, nothing happened now
--   refused              0
--   level                ""
--   limit                ""
--   at_ms                decision instant on the tenant's clock
--   currency             of the first charge that has a price; "" where nothing is priced
--   cost_nanos           of all charges in that currency, collected or not
--   balance_nanos        of that wallet, usable for that charge, after this decision; 0 where nothing is prepaid
--   deadline_ms          0
--   hold_id              ""
--   retry_after_ms       0
--   would                ""
--   limit_units*         of the tightest limit over all levels; -1 no limit
--   remaining_units*     of that limit, after this decision; 0 above it; -1 no limit
--   reset_at_ms*         end of that limit's window on the tenant's clock; 0 none
--   charge_nanos*        what this charge costs
--   static_value*        of a static feature, else ""
--   charge_currency*     of charge_nanos; "" where nothing is priced
--   outage_units*        how many units may be leased for an outage; 0 none
--   plan*                that the customer is on; "" none
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID idem_window_ms  not a whole number below 2^53
--   INVALID body         empty
--   INVALID path         not team, project, user and key in this order, each `kind:name`
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1, or signed where the feature is no gauge
--   INVALID level        a gauge would fall below zero
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter, a gauge or a cost would pass 2^53 - 1
--   CONFLICT idempotency the key is known with another digest
-- INVARIANT
--   nanos that left the grants + uncollected nanos = sum of prepaid charge_nanos
--   an error writes nothing, but for the end of holds that were due
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
--!include lib/level/gauge.lua as gauge_acts
--!include lib/level/cap.lua as cap_acts
--!include lib/level/life.lua as life_acts
--!include lib/level/level.lua
--!include lib/money/wallet.lua
--!include lib/decision/admit.lua
--!include lib/money/entry.lua
--!include lib/decision/lateness.lua as late_acts
--!include lib/hold/hold.lua as hold_acts
--!include lib/plain/terms.lua as plain_acts
--!include lib/plain/walk.lua as walk_acts
--!include lib/decision/straight.lua as straight_acts
--!include lib/decision/debit.lua
--!include lib/decision/answer.lua

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local request_digest, idem_window_ms, body, path, count = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if #KEYS ~= 8 or #ARGV < 5 then return redis.error_reply('INVALID arguments') end
idem_window_ms = whole(idem_window_ms)
if not idem_window_ms then return redis.error_reply('INVALID idem_window_ms') end
if body == '' then return redis.error_reply('INVALID body') end
local few, charges, fault = straight_acts.charges(ARGV, 5), nil, nil
if not few then charges, fault = read_charges(ARGV, 5) end
if fault then return redis.error_reply(fault) end
local epoch = redis.call('GET', epoch_key)
if not epoch then return redis.error_reply('UNAVAILABLE epoch') end
if idem_window_ms > 0 then
  local known, conflict = known_charge(answer_key, request_digest)
  if conflict then return redis.error_reply(conflict) end
  if known then return replayed(known[2]) end
end

if path ~= '' and not path_names(path) then return redis.error_reply('INVALID path') end
local real_ms = real_now_ms()
local has_due = hold_acts.has_due(customer_holds_key, real_ms)
if few and not has_due then
  local packed = straight_acts.debit(KEYS, few, path, real_ms, epoch, body)
  if packed and idem_window_ms > 0 then remember(answer_key, request_digest, idem_window_ms, packed) end
  if packed then return packed end
end

charges = charges or read_charges(ARGV, 5)
local place = {
  snapshot = snapshot_key, wallet = wallet_key, stream = stream_key, customer_holds = customer_holds_key,
  shard_holds = shard_holds_key, epoch = epoch, real_ms = real_ms, body = body, has_due = has_due,
}
local nodes = read_path(path, counters_key)
local reply, wrong = debit(charges, nodes, place, 'record', false)
if wrong then return redis.error_reply(wrong) end
return keep_answer(answer_key, request_digest, idem_window_ms, 0, reply)
