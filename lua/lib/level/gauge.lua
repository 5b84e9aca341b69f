-- Gauges: levels that go up and down, such as seats and storage.
--
-- The hash of each node holds `<feature>:g`; a change moves the level of the customer and of every node of the path. `=n` sets
-- the level of the last node, and those above move by as much. An increase above a ceiling is refused, a decrease never; a
-- level below zero is an error. The charge's quantity becomes the customer's new level, which is what billing reads.

-- By how much this charge moves the levels.
local function change_of(charge, level)
  if charge.sign == '-' then return -charge.quantity end
  return charge.sign == '=' and charge.quantity - level or charge.quantity
end

-- The level of the gauge at the node, with what this request has changed so far.
local function level_at(node, place, feature)
  node.levels = node.levels or {}
  return node.levels[feature] or tonumber(node.values[node.gauges[place + 1]]) or 0
end

-- Whether the changes of all charges pass the ceilings; what they come to is noted in the nodes. Or false, and perhaps a fault.
local function fit_gauges(decision, charges)
  local nodes = decision.nodes
  local last = nodes[#nodes]
  for place = 1, #last.gauges, 3 do
    local index = last.gauges[place]
    local charge = charges[index]
    local change = change_of(charge, level_at(last, place, charge.feature))
    for _, node in ipairs(nodes) do
      local level = level_at(node, place, charge.feature) + change
      if level < 0 then return false, 'INVALID level' end
      if level > MAX_EXACT then return false, 'OVERFLOW quantity' end
      for _, limit in ipairs(node.gauges[place + 2]) do
        if change > 0 and limit[3] >= 0 and level > limit[3] then
          if not refuse(decision, 'limit_reached', index, node, limit[1], 0) then return false end
        end
      end
      node.levels[charge.feature] = level
    end
    charge.new_level = nodes[1].levels[charge.feature]
  end
  return true
end

-- Have the new levels written with the rest of each node, and told in the entry.
local function keep_gauges(nodes, charges)
  for _, charge in ipairs(charges) do
    if charge.new_level then charge.quantity = charge.new_level end
  end
  for depth, node in ipairs(nodes) do
    local fields = node.more_fields or {}
    node.more_fields = fields
    for feature, level in pairs(node.levels or {}) do
      fields[#fields + 1], fields[#fields + 2] = feature .. ':g', digits(level)
    end
    node.keeps_level = depth > 1
  end
end

-- Tell each gauge its tightest limit, in the reply.
local function tell_gauges(nodes, charges, reply, is_acted)
  for _, node in ipairs(nodes) do
    for place = 1, #node.gauges, 3 do
      local index = node.gauges[place]
      local level = is_acted and node.levels[charges[index].feature] or tonumber(node.values[node.gauges[place + 1]]) or 0
      for _, limit in ipairs(node.gauges[place + 2]) do
        local n, remaining = 8 * index + 6, math.max(0, limit[2] - level)
        if reply[n] < 0 or remaining < reply[n + 1] then reply[n], reply[n + 1], reply[n + 2] = limit[2], remaining, 0 end
      end
    end
  end
end

return { fit = fit_gauges, keep = keep_gauges, tell = tell_gauges }
