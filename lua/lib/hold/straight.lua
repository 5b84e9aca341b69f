-- The straight way of a hold that has one charge on plain terms (lib/plain/terms.lua): placed, and ended, with the same
-- answer and the same writes as on the long way, in fewer steps. Whatever is not so plain is left to the long way, and nothing has
-- been written then.

-- What a hold on this walk holds in the nodes, as the long way lists it.
local function walk_leases(walk)
  local leases, terms, nodes, quantity = {}, walk.terms, walk.nodes, walk.quantity
  if terms.price then lease(leases, 1, terms.price[8], 1, 1, quantity) end
  for place = 1, #terms.limits do lease(leases, 1, terms.limits[place][8], 1, 1, quantity) end
  for n = 1, #nodes, 5 do
    local at_node, depth = nodes[n + 2], nodes[n + 3]
    for place = 1, #at_node.limits do lease(leases, depth, at_node.limits[place][8], 1, 1, quantity) end
    for place = 1, #at_node.caps do
      local cap = at_node.caps[place]
      if cap[1] == walk.currency then lease(leases, depth, cap[8], 1, 2, walk.cost) end
    end
  end
  return leases
end

-- The packed reply to a hold that is plainly allowed, once it stands; nil where nothing was done. `keys` are those of hold, and the
-- hold lacks its charges, leases and currency.
local function straight_hold(keys, feature, quantity, real_ms, hold)
  local walk = walk_acts.of(keys, feature, quantity, hold.path, real_ms, true)
  if not walk or not walk_acts.pay(walk, keys[4], walk.cost) then return nil end
  local usable, moved, parts, deadline_ms = walk.usable, walk.parts, {}, hold.deadline_ms
  for n = 1, #moved, 2 do parts[n], parts[n + 1] = usable.grants[moved[n]], moved[n + 1] end
  hold.currency = walk.terms.tariff and walk.currency or ''
  hold.charges = { { feature, quantity, walk.cost, walk.currency, walk.terms.tariff, parts } }
  hold.leases = walk_leases(walk)
  redis.call('ZADD', keys[7], deadline_ms, hold.id)
  redis.call('ZADD', keys[6], deadline_ms, hold.id)
  redis.call('SET', keys[9], cmsgpack.pack(hold))
  for n = 1, #parts, 2 do
    redis.call('HINCRBY', keys[4], usable.fields[moved[n]], -parts[n + 1])
    redis.call('HINCRBY', keys[4], 'h:' .. parts[n], parts[n + 1])
  end
  walk_acts.write(walk, keys[3])
  return walk_acts.reply(walk, deadline_ms, hold.id)
end

return straight_hold
