-- A customer's prepaid balance in one currency, block by block in burn order.
--
-- The hash of a wallet has `o:<currency>`, the packed burn order [grant_id, effective_ms, expires_ms (0 none), priority,
-- paid, created_ms], and for each grant `r:<grant>` remaining and `h:<grant>` held nanos. A grant is usable from its
-- effective instant until before its expiry. Parts are pairs {grant_id, nanos} in the order of taking.

-- The usable grants with what remains of each, and their sum.
local function open_wallet(wallet_key, currency, at)
  local purse = { key = wallet_key, grants = {}, remaining = {}, balance = 0 }
  local packed = redis.call('HGET', wallet_key, 'o:' .. currency)
  if not packed then return purse end
  local grants, fields, count = purse.grants, {}, 0
  for _, grant in ipairs(cmsgpack.unpack(packed)) do
    if grant[2] <= at and (grant[3] == 0 or at < grant[3]) then
      count = count + 1
      grants[count], fields[count] = grant[1], 'r:' .. grant[1]
    end
  end
  if count == 0 then return purse end
  for first = 1, count, 1000 do
    local values = redis.call('HMGET', wallet_key, unpack(fields, first, math.min(first + 999, count)))
    for offset, value in ipairs(values) do
      local nanos = tonumber(value) or 0
      purse.remaining[first + offset - 1], purse.balance = nanos, purse.balance + nanos
    end
  end
  return purse
end

-- Take the amount out of the purse (not yet out of Redis). Returns the parts, and what was not there.
local function take(purse, amount)
  local parts, left = {}, amount
  for index, grant_id in ipairs(purse.grants) do
    if left == 0 then break end
    local nanos = math.min(purse.remaining[index], left)
    if nanos > 0 then
      parts[#parts + 1] = { grant_id, nanos }
      purse.remaining[index], left = purse.remaining[index] - nanos, left - nanos
    end
  end
  purse.balance = purse.balance - (amount - left)
  return parts, left
end

-- Parts as text: `grant=nanos grant=nanos`.
local function parts_text(parts)
  if #parts == 1 then return parts[1][1] .. '=' .. digits(parts[1][2]) end
  local texts = {}
  for index, part in ipairs(parts) do texts[index] = part[1] .. '=' .. digits(part[2]) end
  return table.concat(texts, ' ')
end

-- Move nanos of one grant in one field of the wallet.
local function move(wallet_key, field, nanos)
  if nanos ~= 0 then redis.call('HINCRBY', wallet_key, field, digits(nanos)) end
end
