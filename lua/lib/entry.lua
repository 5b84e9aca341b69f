-- The usage entry: what this step did, in the shard's stream.

-- One column of all charges, joined by spaces.
local function column(charges, name)
  local first = charges[1][name]
  if #charges == 1 then return name == 'currency' and first or digits(first) end
  local texts = {}
  for index, charge in ipairs(charges) do texts[index] = name == 'currency' and charge.currency or digits(charge[name]) end
  return table.concat(texts, ' ')
end

-- Append what was charged; nothing where every quantity is zero and no gauge was named. Charges have quantity, charged,
-- uncollected, rated and currency; `moved` is a sum of parts; `number` is {'n', which entry under this body}, or nil.
local function append_charges(stream_key, entry, charges)
  for index = 1, #charges do
    if charges[index].quantity > 0 or charges[index].new_level then
      redis.call('XADD', stream_key, '*', 'k', entry.kind, 'b', entry.body, 'at', digits(entry.at),
        'q', column(charges, 'quantity'), 'c', column(charges, 'charged'), 'u', column(charges, 'uncollected'),
        's', column(charges, 'rated'), 'm', parts_text(entry.moved), 'w', column(charges, 'currency'), 'e', entry.epoch,
        unpack(entry.number or NONE))
      return
    end
  end
end
