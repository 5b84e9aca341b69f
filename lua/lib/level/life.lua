-- How long the hash of a budget node lives: as long as something in it counts, or is held.
--
-- `x` is until when anything in it counts (tenant's clock; 2^53 - 1: for ever), `o` how many open holds it has. So customers
-- may have any number of keys and users: those that are silent cost nothing once their windows are over.

local HOUR_MS, NEVER = 3600000, MAX_EXACT

-- Until when the slot counts, on the tenant's clock.
local function counts_until(slot, at)
  if slot.is_rolling then return at + slot.window[3] + slot.window[3] / 60 end
  if slot.carries or slot.window and slot.window[1] == 0 then return NEVER end
  return slot.reset
end

-- Until when something that this act has written in the node counts.
local function latest_of(node, at)
  local latest = 0
  for _, slot in ipairs(node.counters) do
    if slot.more_used ~= 0 or slot.more_held ~= 0 then latest = math.max(latest, counts_until(slot, at)) end
  end
  for _, slot in ipairs(node.rates) do
    if slot.raised > 0 then
      latest = math.max(latest, slot.since + math.ceil((slot.level + slot.raised) / slot.rate[2]))
    end
  end
  return node.keeps_level and NEVER or latest
end

-- Until when the hash is said to count: to the full hour, so that it is seldom told anew.
local function told_life(latest)
  return latest < NEVER and math.ceil(latest / HOUR_MS) * HOUR_MS or latest
end

-- Write the fields, and let the node's hash live as long as something in it counts or is held.
local function write_life(node, fields, at, real_ms)
  local known, latest = tonumber(node.values[1]) or 0, latest_of(node, at)
  local holds = tonumber(node.values[2]) or 0
  local left = holds + node.more_holds
  latest = told_life(latest)
  local n = #fields
  if latest > known then fields[n + 1], fields[n + 2], n = 'x', digits(latest), n + 2 end
  if left ~= holds then fields[n + 1], fields[n + 2] = 'o', digits(left) end
  latest = math.max(latest, known)
  if #fields == 0 then return end
  if left == 0 and latest <= at then
    redis.call('DEL', node.key)
    return
  end
  write_fields(node.key, fields)
  if left > 0 or latest >= NEVER then
    if holds == 0 and known < NEVER then redis.call('PERSIST', node.key) end
  elseif latest > known or holds > 0 then
    redis.call('PEXPIREAT', node.key, digits(latest - at + real_ms))
  end
end

return { write = write_life, told = told_life }
