#!lua flags=no-writes
-- peek: what consume would decide now, with no effect.
--
-- The answer to a request that is not made: what stands is told as it stands. A hold that is due and has not been ended
-- yet still counts as held, because ending it would be an effect.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         used and held units
--   wallet_key           grants
--   stream_key           usage stream of the shard
--   customer_holds_key   deadlines of this customer's holds
--   shard_holds_key      deadlines of all holds of the shard
--   answer_key           first answer to this idempotency key (not read, nor are the three before it)
-- ARGV
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1
-- RETURNS
--   reason               allowed, suspended, not_entitled, limit_reached, insufficient_balance, or unavailable (no window)
--   replayed             0
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   at_ms                decision instant on the tenant's clock
--   currency             of all amounts; "" where nothing is priced
--   cost_nanos           of all charges, as consume would take them
--   balance_nanos        usable and not held as it stands; 0 where no balance was read
--   deadline_ms          0
--   hold_id              ""
--   limit_units*         -1 no limit
--   remaining_units*     of the limit as it stands; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of the limit's window on the tenant's clock; 0 none
--   charge_nanos*        of this charge
--   static_value*        of a static feature, else ""
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1
--   INVALID currency     the charges are priced in two currencies
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter would pass 2^53 - 1
-- INVARIANT
--   nothing is written: the server itself refuses writes to this script
--   reason, refused, cost_nanos and charge_nanos are those of a consume in the same instant, unless a hold is due
--!include lib/number.lua
--!include lib/exact.lua
--!include lib/tariff.lua
--!include lib/window.lua
--!include lib/counter.lua
--!include lib/wallet.lua
--!include lib/admit.lua

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local count = ARGV[1]

if #KEYS ~= 8 or #ARGV < 1 then return redis.error_reply('INVALID arguments') end
local charges, fault = read_charges(1)
if fault then return redis.error_reply(fault) end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end

local decision =
  decide(charges, real_now_ms(), { snapshot = snapshot_key, counters = counters_key, wallet = wallet_key }, false)
if decision.fault then return redis.error_reply(decision.fault) end
return reply_of(decision, charges, 0, '')
