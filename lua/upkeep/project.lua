#!lua
-- project: replace a customer's snapshot whole, unless it is as new already.
--
-- A decision trusts its snapshot; so the snapshot is checked here, at its door: codes, shapes, windows that have an end,
-- tiers that ascend to an open one, rates that a double carries, at most 32 limits, rates, prices and caps at once, whole
-- numbers below 2^53. Counters of one name at one node must have one window; that is not checked.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
-- ARGV
--   version              of the snapshot; must be above the one that stands
--   status               active or suspended
--   offset_ms            tenant's clock minus real clock
--   field*               f:<feature>, or b:<node>: "" the customer, a path such as team:ml/key:k1, or team:* for all of a kind
--   value*               the entitlement or the budget, msgpack array
-- RETURNS
--   applied              1 applied, 0 the snapshot that stands is as new or newer
-- ERRORS
--   INVALID arguments    too few, a field without a value, or the wrong number of keys
--   INVALID version      not a whole number below 2^53
--   INVALID status       neither active nor suspended
--   INVALID offset_ms    not a whole number below 2^53
--   INVALID field        neither f: and a code nor b: and a node
--   INVALID entitlement  not what contract/snapshot.py describes
--   INVALID budget       not what contract/snapshot.py describes
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   a snapshot is seen never or entirely, and its version only rises
--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua
--!include lib/value/path.lua

local epoch_key, snapshot_key = KEYS[1], KEYS[2]
local version, status, offset_ms = ARGV[1], ARGV[2], ARGV[3]
local GAUGE, MOST_OF_A_LIST = 3, 32

local function is_whole(value, least)
  return type(value) == 'number' and value >= least and value <= MAX_EXACT and value % 1 == 0
end

local function is_window(window)
  if type(window) ~= 'table' or type(window[4]) ~= 'table' then return false end
  if not is_whole(window[1], 0) or not is_whole(window[2], 0) or not is_whole(window[3], 0) then return false end
  if window[1] == 1 and window[3] == 0 then return false end
  if window[1] == ROLLING and (window[3] == 0 or window[3] % 60 ~= 0) then return false end
  for index, edge in ipairs(window[4]) do
    if not is_whole(edge, index > 1 and window[4][index - 1] + 1 or 0) then return false end
  end
  return window[1] <= ROLLING
end

-- Whether the table has these elements and nothing else, each a thing that the check lets pass.
local function is_list(list, check)
  if type(list) ~= 'table' then return false end
  local count = 0
  for _ in pairs(list) do count = count + 1 end
  if count ~= #list or count > MOST_OF_A_LIST then return false end
  for _, one in ipairs(list) do
    if type(one) ~= 'table' or not check(one) then return false end
  end
  return true
end

local function is_name(name, prefix)
  return type(name) == 'string' and #name <= 200 and string.find(name, '^' .. prefix .. '[%w][%w_.@~%-]*$') ~= nil
end

local function is_limit(limit)
  if not is_name(limit[1], '') or not is_whole(limit[2], 0) or not is_whole(limit[3], -1) then return false end
  if not is_window(limit[4]) or not is_whole(limit[5], 0) or not is_whole(limit[6], 0) then return false end
  return limit[6] == 0 or limit[4][1] ~= ROLLING
end

local function is_rate(rate)
  if not is_name(rate[1], '') or not is_whole(rate[2], 1) or not is_whole(rate[3], 1) then return false end
  if not is_whole(rate[4], 1) or rate[4] * rate[3] > MAX_EXACT then return false end
  return rate[5] == 0 or rate[5] == 1
end

local function is_guard(guard)
  if type(guard) ~= 'table' or not is_list(guard[1], is_limit) or not is_list(guard[2], is_rate) then return false end
  local names = {}
  for n = 1, 2 do
    for _, one in ipairs(guard[n]) do
      if names[one[1]] then return false end
      names[one[1]] = true
    end
  end
  return is_whole(guard[3], -1)
end

local function is_currency(currency)
  return type(currency) == 'string' and string.find(currency, '^[%w][%w_.%-]*$') ~= nil
end

local function is_plan(plan)
  return type(plan) == 'string' and #plan <= 64 and (plan == '' or string.find(plan, '^[%w][%w_.%-]*$') ~= nil)
end

local function is_cap(cap)
  if not is_name(cap[1], '%$') or not is_currency(cap[2]) then return false end
  return is_whole(cap[3], 0) and is_whole(cap[4], -1) and is_window(cap[5]) and is_whole(cap[6], 0)
end

local function is_tariff(tariff)
  if type(tariff[5]) ~= 'table' or not is_window(tariff[6]) then return false end
  if type(tariff[1]) ~= 'string' or tariff[1] == '' or not is_currency(tariff[2]) then return false end
  if tariff[6][1] == ROLLING or type(tariff[7]) ~= 'boolean' then return false end
  if not is_whole(tariff[3], 1) or not is_whole(tariff[4], 1) then return false end
  local low = 0
  for index, tier in ipairs(tariff[5]) do
    if type(tier) ~= 'table' or not is_whole(tier[2], 0) or not is_whole(tier[3], 0) then return false end
    local is_last = index == #tariff[5]
    if is_last and tier[1] ~= 0 or not is_last and not is_whole(tier[1], low + 1) then return false end
    low = tier[1]
  end
  return #tariff[5] > 0
end

-- What the text packs, where it is a table.
local function unpacked(packed)
  local is_msgpack, value = pcall(cmsgpack.unpack, packed)
  return is_msgpack and type(value) == 'table' and value
end

local function is_entitlement(packed)
  local entitlement = unpacked(packed)
  if not entitlement or not is_whole(entitlement[1], 0) or entitlement[1] > GAUGE then return false end
  if type(entitlement[2]) ~= 'boolean' or type(entitlement[3]) ~= 'string' then return false end
  if not is_guard(entitlement[4]) or not is_list(entitlement[5], is_tariff) then return false end
  if entitlement[1] == GAUGE and #entitlement[5] > 0 then return false end
  if entitlement[9] ~= nil and not is_plan(entitlement[9]) then return false end
  return is_whole(entitlement[6], 0) and type(entitlement[7]) == 'boolean'
end

local function is_budget(packed)
  local budget = unpacked(packed)
  if not budget or type(budget[1]) ~= 'table' or not is_list(budget[2], is_cap) then return false end
  local names = {}
  for _, cap in ipairs(budget[2]) do
    if names[cap[1]] then return false end
    names[cap[1]] = true
  end
  for feature, guard in pairs(budget[1]) do
    if type(feature) ~= 'string' or not is_guard(guard) then return false end
  end
  return true
end

local function is_node(node)
  return node == '' or (PLACES[string.match(node, '^(%l+):%*$') or ''] or read_path(node, '')) ~= nil
end

if #KEYS ~= 2 or #ARGV < 3 or #ARGV % 2 == 0 then return redis.error_reply('INVALID arguments') end
version, offset_ms = whole(version), whole(offset_ms)
if not version then return redis.error_reply('INVALID version') end
if status ~= 'active' and status ~= 'suspended' then return redis.error_reply('INVALID status') end
if not offset_ms then return redis.error_reply('INVALID offset_ms') end
for index = 4, #ARGV, 2 do
  local sort, name = string.match(ARGV[index], '^([fb]):(.*)$')
  if sort == 'f' and string.find(name, '^[%w][%w_.%-]*$') then
    if not is_entitlement(ARGV[index + 1]) then return redis.error_reply('INVALID entitlement') end
  elseif sort == 'b' and is_node(name) then
    if not is_budget(ARGV[index + 1]) then return redis.error_reply('INVALID budget') end
  else
    return redis.error_reply('INVALID field')
  end
end
if not redis.call('GET', epoch_key) then return redis.error_reply('UNAVAILABLE epoch') end
local standing = tonumber(redis.call('HGET', snapshot_key, 'v'))
if standing and standing >= version then return 0 end

redis.call('DEL', snapshot_key)
redis.call('HSET', snapshot_key, 'v', digits(version), 'st', status, 'off', digits(offset_ms))
for first = 4, #ARGV, 1000 do
  redis.call('HSET', snapshot_key, unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return 1
