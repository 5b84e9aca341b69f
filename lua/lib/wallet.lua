-- A customer's prepaid balance, currency by currency, block by block in burn order.
--
-- The hash of a wallet has `o:<currency>`, the packed burn order [grant_id, effective_ms, expires_ms (0 none), priority,
-- paid (0 promotional, 1 paid, 2 overdraft), created_ms, features (separated by spaces; "" all)], and for each grant
-- `r:<grant>` remaining and `h:<grant>` held nanos, and of an overdraft `a:<grant>` how much it lends at most. A grant is
-- usable from its effective instant until before its expiry, for the features that it names.
--
-- A purse is what of one currency is usable: grants, features, remaining (all in burn order), balance and
-- is_restricted. Parts are flat: {grant_id, nanos, grant_id, nanos, ...} in the order of taking.

-- The purses of these currencies, by currency. Two commands, whatever their number.
local function open_purses(wallet_key, currencies, at)
  local purses, orders, fields, count, values = {}, { nil }, { nil, nil }, 0, NONE
  for place = 1, #currencies do orders[place] = 'o:' .. currencies[place] end
  if orders[1] then orders = redis.call('HMGET', wallet_key, unpack(orders)) end
  for place = 1, #currencies do
    local grants, features, size = { nil, nil }, { nil, nil }, 0
    local purse = {
      grants = grants, features = features, remaining = { nil, nil }, balance = 0, is_restricted = false, first = count,
    }
    purses[currencies[place]] = purse
    local order = orders[place] and cmsgpack.unpack(orders[place]) or NONE
    for n = 1, #order do
      local grant = order[n]
      if grant[2] <= at and (grant[3] == 0 or at < grant[3]) then
        size, count = size + 1, count + 1
        grants[size], features[size], fields[count] = grant[1], grant[7], 'r:' .. grant[1]
        if grant[7] ~= '' then purse.is_restricted = true end
      end
    end
  end
  if count > 0 then values = read_fields(wallet_key, fields) end
  for _, purse in pairs(purses) do
    for place = 1, #purse.grants do
      local nanos = tonumber(values[purse.first + place]) or 0
      purse.remaining[place], purse.balance = nanos, purse.balance + nanos
    end
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
