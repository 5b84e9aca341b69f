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

-- Whether the changes of all charges pass the ceilings; what they come to is noted in the nodes.
local function fit_gauges(decision, nodes, charges)
  local changes, last = {}, nodes[#nodes]
  for _, node in ipairs(nodes) do node.levels = {} end
  for place = 1, #last.gauges, 3 do
    local index = last.gauges[place]
    local charge = charges[index]
    for _, node in ipairs(nodes) do
      local feature_level = node.levels[charge.feature] or tonumber(node.values[node.gauges[place + 1]]) or 0
      node.levels[charge.feature] = feature_level
    end
    changes[place] = change_of(charge, last.levels[charge.feature])
    for _, node in ipairs(nodes) do
      local level = node.levels[charge.feature] + changes[place]
      if level < 0 then return fail(decision, 'INVALID level') end
      if level > MAX_EXACT then return fail(decision, 'OVERFLOW quantity') end
      for _, limit in ipairs(node.gauges[place + 2]) do
        if changes[place] > 0 and limit[3] >= 0 and level > limit[3] then
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
    if charge.is_gauge then charge.quantity = charge.new_level end
  end
  for depth, node in ipairs(nodes) do
    local fields = node.more_fields or {}
    node.more_fields = fields
    for feature, level in pairs(node.levels) do
      fields[#fields + 1], fields[#fields + 2] = feature .. ':g', digits(level)
    end
    node.keeps_level = depth > 1
  end
end

-- Tell each gauge its limits.
local function tell_gauges(nodes, charges, tell, is_acted)
  for _, node in ipairs(nodes) do
    for place = 1, #node.gauges, 3 do
      local charge = charges[node.gauges[place]]
      local level = is_acted and node.levels[charge.feature] or tonumber(node.values[node.gauges[place + 1]]) or 0
      for _, limit in ipairs(node.gauges[place + 2]) do tell(charge, limit[2], math.max(0, limit[2] - level), 0) end
    end
  end
end

return { fit = fit_gauges, keep = keep_gauges, tell = tell_gauges }
