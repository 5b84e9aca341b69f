#!lua
-- project: replace a customer's snapshot whole, unless it is as new already.
--
-- A decision trusts its snapshot; so the snapshot is checked here, at its door: codes, shapes, windows that have an end,
-- tiers that ascend to an open one, whole numbers below 2^53.
--
-- KEYS
--   epoch_key            epoch of the shard; absent while it is not built
--   snapshot_key         what the customer may do, and the tenant's clock offset
-- ARGV
--   version              of the snapshot; must be above the one that stands
--   status               active or suspended
--   offset_ms            tenant's clock minus real clock
--   field*               f:<feature>
--   value*               the entitlement, msgpack array
-- RETURNS
--   applied              1 applied, 0 the snapshot that stands is as new or newer
-- ERRORS
--   INVALID arguments    too few, a field without a value, or the wrong number of keys
--   INVALID version      not a whole number below 2^53
--   INVALID status       neither active nor suspended
--   INVALID offset_ms    not a whole number below 2^53
--   INVALID field        not f: and a code
--   INVALID entitlement  not what contract/snapshot.py describes
--   UNAVAILABLE epoch    the shard is not built
-- INVARIANT
--   a snapshot is seen never or entirely, and its version only rises
--!include lib/number.lua

local epoch_key, snapshot_key = KEYS[1], KEYS[2]
local version, status, offset_ms = ARGV[1], ARGV[2], ARGV[3]

local function is_whole(value, least)
  return type(value) == 'number' and value >= least and value <= MAX_EXACT and value % 1 == 0
end

local function is_window(window)
  if type(window) ~= 'table' or type(window[4]) ~= 'table' then return false end
  if not is_whole(window[1], 0) or not is_whole(window[2], 0) or not is_whole(window[3], 0) then return false end
  if window[1] == 1 and window[3] == 0 then return false end
  for index, edge in ipairs(window[4]) do
    if not is_whole(edge, index > 1 and window[4][index - 1] + 1 or 0) then return false end
  end
  return window[1] <= 2
end

local function is_tariff(tariff)
  if type(tariff) ~= 'table' or type(tariff[5]) ~= 'table' or not is_window(tariff[6]) then return false end
  if type(tariff[1]) ~= 'string' or type(tariff[2]) ~= 'string' then return false end
  if tariff[1] == '' or not string.find(tariff[2], '^[%w_.%-]+$') then return false end
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

local function is_entitlement(packed)
  local is_msgpack, entitlement = pcall(cmsgpack.unpack, packed)
  if not is_msgpack or type(entitlement) ~= 'table' or not is_window(entitlement[6]) then return false end
  local tariffs = entitlement[7]
  if type(entitlement[2]) ~= 'boolean' or type(entitlement[3]) ~= 'string' or type(tariffs) ~= 'table' then
    return false
  end
  if not is_whole(entitlement[1], 0) or entitlement[1] > 2 or not is_whole(entitlement[4], -1) then return false end
  if entitlement[5] ~= 0 and entitlement[5] ~= 1 then return false end
  return #tariffs == 0 or (#tariffs == 1 and is_tariff(tariffs[1]))
end

if #KEYS ~= 2 or #ARGV < 3 or #ARGV % 2 == 0 then return redis.error_reply('INVALID arguments') end
version, offset_ms = whole(version), whole(offset_ms)
if not version then return redis.error_reply('INVALID version') end
if status ~= 'active' and status ~= 'suspended' then return redis.error_reply('INVALID status') end
if not offset_ms then return redis.error_reply('INVALID offset_ms') end
for index = 4, #ARGV, 2 do
  if not string.find(ARGV[index], '^f:[%w][%w_.%-]*$') then return redis.error_reply('INVALID field') end
  if not is_entitlement(ARGV[index + 1]) then return redis.error_reply('INVALID entitlement') end
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
