-- A customer's prepaid balance, currency by currency, block by block in burn order.
--
-- The hash of a wallet has `o:<currency>`, the packed burn order [grant_id, effective_ms, expires_ms (0 none), priority,
-- paid (0 promotional, 1 paid, 2 overdraft), created_ms, features (separated by spaces; "" all)], and for each grant
-- `r:<grant>` remaining and `h:<grant>` held nanos, and of an overdraft `a:<grant>` how much it lends at most. A grant is
-- usable from its effective instant until before its expiry, for the features that it names.
--
-- A purse is what of one currency is usable: grants, features, remaining (all in burn order), balance and
-- is_restricted. Parts are flat: {grant_id, nanos, grant_id, nanos, ...} in the order of taking.

local order_field = memo(function(currency) return 'o:' .. currency end, 256)

-- Those of a packed burn order that are usable at the instant: their ids, fields and features, and until when that is so.
local function usable_at(order, at)
  local usable = { grants = {}, fields = {}, features = {}, is_restricted = false, from = 0, till = MAX_EXACT }
  for _, grant in ipairs(order) do
    local effective, expires = grant[2], grant[3] > 0 and grant[3] or MAX_EXACT
    if effective > at then
      usable.till = math.min(usable.till, effective)
    elseif at < expires then
      local n = #usable.grants + 1
      usable.grants[n], usable.fields[n], usable.features[n] = grant[1], 'r:' .. grant[1], grant[7]
      usable.from, usable.till = math.max(usable.from, effective), math.min(usable.till, expires)
      if grant[7] ~= '' then usable.is_restricted = true end
    else
      usable.from = math.max(usable.from, expires)
    end
  end
  return usable
end

-- A packed burn order, and what of it was usable when it was last asked.
local known_order = memo(function(packed)
  local order = packed and cmsgpack.unpack(packed) or NONE
  return { order = order, usable = usable_at(order, 0) }
end, 1024)

-- What of a packed burn order (false: none) is usable at the instant.
local function usable_grants(packed, at)
  local known = known_order(packed)
  local usable = known.usable
  if at < usable.from or at >= usable.till then
    usable = usable_at(known.order, at)
    known.usable = usable
  end
  return usable
end

-- The purses of these currencies, by currency. Two commands, whatever their number.
local function open_purses(wallet_key, currencies, at)
  local purses, orders, count = {}, { nil }, #currencies
  if count == 0 then return purses end
  for place = 1, count do orders[place] = order_field(currencies[place]) end
  orders = redis.call('HMGET', wallet_key, unpack(orders))
  local fields, values = NONE, NONE
  for place = 1, count do
    local usable = usable_grants(orders[place], at)
    local first = #fields
    purses[currencies[place]] = {
      grants = usable.grants, features = usable.features, is_restricted = usable.is_restricted, remaining = { nil, nil },
      balance = 0, first = first,
    }
    if place == 1 then
      fields = count == 1 and usable.fields or { unpack(usable.fields) }
    else
      for n = 1, #usable.fields do fields[first + n] = usable.fields[n] end
    end
  end
  if fields[1] then values = read_fields(wallet_key, fields) end
  for place = 1, count do
    local purse, balance = purses[currencies[place]], 0
    local remaining, first = purse.remaining, purse.first
    for n = 1, #purse.grants do
      local nanos = tonumber(values[first + n] or 0)
      remaining[n], balance = nanos, balance + nanos
    end
    purse.balance = balance
  end
  return purses
end

local function is_for(features, feature)
  return features == '' or string.find(' ' .. features .. ' ', ' ' .. feature .. ' ', 1, true) ~= nil
end

-- What the purse has for a feature.
local function available(purse, feature)
  if not purse.is_restricted then return purse.balance end
  local nanos = 0
  for place, features in ipairs(purse.features) do
    if is_for(features, feature) then nanos = nanos + purse.remaining[place] end
  end
  return nanos
end

-- Take an amount for a feature out of the purse (not yet out of Redis) and add it to a sum by grant: its ids in the order of
-- their first mention, and the nanos by id. Returns the parts, and what was not there.
local function take(purse, feature, amount, sum)
  local parts, count, left, remaining, grants = { nil, nil }, 0, amount, purse.remaining, purse.grants
  for place = 1, #grants do
    if left == 0 then break end
    local nanos, grant_id = remaining[place], grants[place]
    if nanos > 0 and (not purse.is_restricted or is_for(purse.features[place], feature)) then
      if nanos > left then nanos = left end
      parts[count + 1], parts[count + 2], count = grant_id, nanos, count + 2
      remaining[place], left = remaining[place] - nanos, left - nanos
      if not sum[grant_id] then sum[#sum + 1], sum[grant_id] = grant_id, 0 end
      sum[grant_id] = sum[grant_id] + nanos
    end
  end
  purse.balance = purse.balance - (amount - left)
  return parts, left
end

-- Add nanos of one grant to a sum by grant, as `take` does.
local function add_nanos(sum, grant_id, nanos)
  if not sum[grant_id] then sum[#sum + 1], sum[grant_id] = grant_id, 0 end
  sum[grant_id] = sum[grant_id] + nanos
end

-- A sum of parts as text: `grant=nanos grant=nanos`.
local function parts_text(sum)
  if #sum == 1 then return sum[1] .. '=' .. digits(sum[sum[1]]) end
  local texts = {}
  for place, grant_id in ipairs(sum) do texts[place] = grant_id .. '=' .. digits(sum[grant_id]) end
  return table.concat(texts, ' ')
end

-- Move nanos of one grant in one field of the wallet.
local function move(wallet_key, field, nanos)
  if nanos ~= 0 then redis.call('HINCRBY', wallet_key, field, digits(nanos)) end
end
