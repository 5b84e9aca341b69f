-- The usage entry: what this step did, in the shard's stream.

-- One column of all charges, joined by spaces.
local function column(charges, name)
  local texts = {}
  for index, charge in ipairs(charges) do texts[index] = name == 'currency' and charge.currency or digits(charge[name]) end
  return table.concat(texts, ' ')
end

-- Append what was charged; nothing where every quantity is zero and no gauge was named. Charges have quantity, charged,
-- uncollected, rated and currency; `moved` is a sum of parts; `number` is {'n', which entry under this body}, or nil.
local function append_charges(stream_key, entry, charges)
  local charge = charges[1]
  local quantity, charged, uncollected, rated, currency =
    charge.quantity, charge.charged, charge.uncollected, charge.rated, charge.currency
  local is_told = quantity > 0 or charge.new_level
  if charges[2] then
    for index = 2, #charges do is_told = is_told or charges[index].quantity > 0 or charges[index].new_level end
    quantity, charged, uncollected = column(charges, 'quantity'), column(charges, 'charged'), column(charges, 'uncollected')
    rated, currency = column(charges, 'rated'), column(charges, 'currency')
  end
  if not is_told then return end
  redis.call('XADD', stream_key, '*', 'k', entry.kind, 'b', entry.body, 'at', entry.at, 'q', quantity, 'c', charged,
    'u', uncollected, 's', rated, 'm', parts_text(entry.moved), 'w', currency, 'e', entry.epoch, unpack(entry.number or NONE))
end
