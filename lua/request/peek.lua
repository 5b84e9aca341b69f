#!lua flags=no-writes
-- peek: what consume would decide now, with no effect.
--
-- The answer to a request that is not made: what stands is told as it stands. A hold that is due and has not been ended
-- yet still counts as held, because ending it would be an effect.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
--   counters_key         of the customer; those of a budget node have this name, a slash and the node
--   wallet_key           grants
--   stream_key           usage stream of the shard
--   customer_holds_key   deadlines of this customer's holds
--   shard_holds_key      deadlines of all holds of the shard
--   answer_key           first answer to this idempotency key (not read, nor are the three before it)
-- ARGV
--   path                 budget levels below the customer, such as team:ml/key:k1; "" none
--   count                how many charges follow, 1 to 100
--   feature*             of each charge
--   quantity*            of each charge, 0 to 2^53 - 1; of a gauge also -n (less) and =n (set)
-- RETURNS packed
--   reason               allowed, or a refusal: see lib/decision/admit.lua; unavailable where no window holds this instant
--   replayed             0
--   refused              1-based charge that was refused; 0 none, or the customer as a whole
--   level                that refused: customer, or a node of the path; "" where no level did
--   limit                counter that refused, at that level; "" none
--   at_ms                decision instant on the tenant's clock
--   currency             of the first charge that has a price; "" where nothing is priced
--   cost_nanos           of all charges in that currency, as consume would take them
--   balance_nanos        of that wallet, usable for that charge, as it stands; 0 where nothing is prepaid
--   deadline_ms          0
--   hold_id              ""
--   retry_after_ms       until the limit or rate that refused has room again; 0 unknown, or never
--   would                reason that shadow mode did not refuse for; "" none
--   limit_units*         of the tightest limit over all levels; -1 no limit
--   remaining_units*     of that limit, as it stands; 0 above a soft limit; -1 no limit
--   reset_at_ms*         end of that limit's window on the tenant's clock; 0 none
--   charge_nanos*        what this charge costs
--   static_value*        of a static feature, else ""
--   charge_currency*     of charge_nanos; "" where nothing is priced
--   outage_units*        how many units may be leased for an outage; 0 none
--   plan*                that the customer is on; "" none
-- ERRORS
--   INVALID arguments    too few, or the wrong number of keys
--   INVALID path         not team, project, user and key in this order, each `kind:name`
--   INVALID charges      the count is not 1 to 100, or is not the number of charges given
--   INVALID quantity     not a whole number from 0 to 2^53 - 1, or signed where the feature is no gauge
--   INVALID level        a gauge would fall below zero
--   UNAVAILABLE epoch    the shard is not built
--   UNKNOWN customer     there is no snapshot
--   OVERFLOW quantity    a counter, a gauge or a postpaid cost would pass 2^53 - 1
-- INVARIANT
--   nothing is written: the server itself refuses writes to this script
--   reason, refused, level, cost_nanos and charge_nanos are those of a consume in the same instant, unless a hold is due
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

local epoch_key, snapshot_key, counters_key, wallet_key, stream_key, customer_holds_key, shard_holds_key, answer_key =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local path, count = ARGV[1], ARGV[2]

if #KEYS ~= 8 or #ARGV < 2 then return redis.error_reply('INVALID arguments') end
local nodes = read_path(path, counters_key)
if not nodes then return redis.error_reply('INVALID path') end
local charges, fault = read_charges(ARGV, 2)
if fault then return redis.error_reply(fault) end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end

local place = { snapshot = snapshot_key, wallet = wallet_key, real_ms = real_now_ms() }
local decision = decide(charges, nodes, place, 'consume', false)
if decision.fault then return redis.error_reply(decision.fault) end
return cmsgpack.pack(reply_of(decision, charges, 0, ''))
