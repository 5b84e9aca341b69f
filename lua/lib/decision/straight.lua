-- The straight way: charges on plain terms (lib/plain/terms.lua) are made with the same reply, the same writes and the same entry as
-- on the long way, in fewer steps. It refuses nothing: what is not plainly allowed is left to the long way, and nothing has been
-- written then.

local FEW_CHARGES = 4

-- The few charges behind ARGV[position], flat: {feature, quantity, ...}; nil where they are more, or some have no quantity.
local function few_charges(ARGV, position)
  local count = whole(ARGV[position])
  if not count or count < 1 or count > FEW_CHARGES or #ARGV ~= position + 2 * count then return nil end
  local asked = { ARGV[position + 1], whole(ARGV[position + 2]), nil, nil }
  if (asked[2] or 0) == 0 then return nil end
  for n = 3, 2 * count, 2 do
    local quantity = whole(ARGV[position + n + 1]) or 0
    if quantity == 0 then return nil end
    asked[n], asked[n + 1] = ARGV[position + n], quantity
  end
  return asked
end

-- Take the nanos out of Redis.
local function write_parts(walk, wallet_key)
  local usable, parts = walk.usable, walk.parts
  for n = 1, #parts, 2 do redis.call('HINCRBY', wallet_key, usable.fields[parts[n]], -parts[n + 1]) end
end

-- Whether two walks write the same field; `known` has those of the walks before.
local function shares(known, key, fields)
  local others = known[key] or {}
  known[key] = others
  for n = 1, #fields, 2 do
    if others[fields[n]] then return true end
    others[fields[n]] = true
  end
  return false
end

-- The walks of several charges that have no counter in common and are paid from one wallet; the one of them that pays, or false;
-- and what they cost together. Nil where they are not so plain.
local function walks_of(keys, asked, path, real_ms)
  local walks, known, payer, total = {}, {}, false, 0
  for n = 1, #asked, 2 do
    local walk = walk_acts.of(keys, asked[n], asked[n + 1], path, real_ms, false)
    if not walk or shares(known, keys[3], walk.fields) then return nil end
    for node = 1, #walk.nodes, 5 do
      if shares(known, walk.nodes[node], walk.nodes[node + 1]) then return nil end
    end
    if walk.terms.tariff then
      payer = payer or walk
      if walk.currency ~= payer.currency or walk.terms.order ~= payer.terms.order then return nil end
    end
    walks[#walks + 1], total = walk, total + walk.cost
  end
  if total > MAX_EXACT or payer and not walk_acts.pay(payer, keys[4], total) then return nil end
  return walks, payer, total
end

-- The packed reply to several charges, as `reply_of` tells it.
local function reply_of_walks(walks, payer, total)
  local currency, balance, count = payer and payer.currency or '', payer and payer.balance or 0, 13 + 8 * #walks
  local reply = '\220\000' .. string.char(count)
    .. cmsgpack.pack('allowed', 0, 0, '', '', walks[1].at, currency, total, balance, 0, '', 0, '')
  for place = 1, #walks do
    local walk = walks[place]
    reply = reply .. cmsgpack.pack(walk.most, walk.remaining, walk.until_ms, walk.cost, '',
      walk.terms.tariff and walk.currency or '', walk.terms.outage_units, walk.terms.plan)
  end
  return reply
end

-- As below, for several charges.
local function straight_debits(keys, asked, path, real_ms, epoch, body)
  local walks, payer, total = walks_of(keys, asked, path, real_ms)
  if not walks then return nil end
  local quantities, charged, nothing, rated, currencies = {}, {}, {}, {}, {}
  for place, walk in ipairs(walks) do
    quantities[place], rated[place], currencies[place] = digits(walk.quantity), digits(walk.cost), walk.currency
    charged[place], nothing[place] = walk.terms.order and rated[place] or '0', '0'
  end
  redis.call('XADD', keys[5], '*', 'k', 'debit', 'b', body, 'at', walks[1].at, 'q', table.concat(quantities, ' '),
    'c', table.concat(charged, ' '), 'u', table.concat(nothing, ' '), 's', table.concat(rated, ' '),
    'm', payer and walk_acts.moved(payer) or '', 'w', table.concat(currencies, ' '), 'e', epoch)
  if payer then write_parts(payer, keys[4]) end
  for _, walk in ipairs(walks) do walk_acts.write(walk, keys[3]) end
  return reply_of_walks(walks, payer, total)
end

-- The packed reply to charges that are plainly allowed, once all of them are written; nil where nothing was done. `keys` are those
-- of consume and record.
local function straight_debit(keys, asked, path, real_ms, epoch, body)
  if asked[3] then return straight_debits(keys, asked, path, real_ms, epoch, body) end
  local walk = walk_acts.of(keys, asked[1], asked[2], path, real_ms, false)
  if not walk or not walk_acts.pay(walk, keys[4], walk.cost) then return nil end
  redis.call('XADD', keys[5], '*', 'k', 'debit', 'b', body, 'at', walk.at, 'q', walk.quantity,
    'c', walk.usable and walk.cost or 0, 'u', 0, 's', walk.cost, 'm', walk_acts.moved(walk), 'w', walk.currency, 'e', epoch)
  write_parts(walk, keys[4])
  walk_acts.write(walk, keys[3])
  return walk_acts.reply(walk, 0, '')
end

return { charges = few_charges, debit = straight_debit }
