-- The usage entry: what this step did, in the shard's stream.

-- The values of one column of all charges, joined by spaces.
local function column(charges, name)
  if #charges == 1 then return digits(charges[1][name]) end
  local texts = {}
  for index, charge in ipairs(charges) do texts[index] = digits(charge[name]) end
  return table.concat(texts, ' ')
end

local function currency_column(charges)
  if #charges == 1 then return charges[1].currency end
  local texts = {}
  for index, charge in ipairs(charges) do texts[index] = charge.currency end
  return table.concat(texts, ' ')
end

-- Append what was charged; nothing where every quantity is zero and no gauge was named. Charges have quantity, charged,
-- uncollected, rated and currency; `moved` is a sum of parts.
local function append_charges(stream_key, entry, charges)
  for _, charge in ipairs(charges) do
    if charge.quantity > 0 or charge.is_gauge then
      redis.call('XADD', stream_key, '*', 'k', entry.kind, 'b', entry.body, 'at', digits(entry.at),
        'q', column(charges, 'quantity'), 'c', column(charges, 'charged'), 'u', column(charges, 'uncollected'),
        's', column(charges, 'rated'), 'm', parts_text(entry.moved), 'w', currency_column(charges), 'e', entry.epoch)
      return
    end
  end
end
