-- What a hold keeps for its end.
--
-- The hash of an open hold has id, state `open`, deadline_ms (real clock), on_expiry, the names of the customer's keys (snapshot,
-- counters, wallet, customer_holds, stream), body, path, would (the reason for which shadow mode placed it empty; ""),
-- currency (of the first charge that has a price), and two packed lists:
--
-- charges: for each charge {feature, units held, nanos held, currency (`-` none), tariff as promised (false: none), parts taken of
-- its grants {grant_id, nanos, ...} (none where the tariff is not prepaid)};
-- leases: what the end has to take back, flat {depth of the node (1: the customer), field of its hash, charge, measure, ...}, where the
-- measure is 1 for the charge's units (a limit or a price), 2 for its nanos (a spend cap) and 0 for one (concurrency).

-- List a field that holds something of these charges.
local function lease(leases, depth, field, index, measure)
  local n = #leases
  leases[n + 1], leases[n + 2], leases[n + 3], leases[n + 4] = depth, field, index, measure
end

-- List what the charges hold at a node. A concurrency limit is held once for each feature, and is written with the node.
local function lease_node(leases, node, depth, charges)
  local known, fields = {}, {}
  for n = 1, #node.uses, 3 do lease(leases, depth, node.uses[n + 1].name .. ':h', node.uses[n], 1) end
  for n = 1, #node.caps, 2 do
    for index, charge in ipairs(charges) do
      if charge.tariff and charge.currency == node.caps[n + 1][2] then
        lease(leases, depth, node.caps[n].name .. ':h', index, 2)
      end
    end
  end
  for n = 1, #node.leases, 3 do
    local place = node.leases[n + 1]
    local field = node.fields[place]
    if not known[field] then
      known[field] = true
      lease(leases, depth, field, node.leases[n], 0)
      fields[#fields + 1], fields[#fields + 2] = field, digits((tonumber(node.values[place]) or 0) + 1)
    end
  end
  node.more_fields = fields
end

-- Write the hold: its head, its charges and its leases. Where shadow mode did not refuse, it holds nothing.
local function place_hold(hold_key, head, decision, charges)
  local kept, leases, is_empty = {}, {}, decision.would ~= ''
  for index, charge in ipairs(charges) do
    kept[index] = is_empty and { charge.feature, 0, 0, '-', false, {} }
      or { charge.feature, charge.quantity, charge.rated, charge.currency, charge.tariff, charge.parts }
    if charge.price and not is_empty then lease(leases, 1, charge.price.name .. ':h', index, 1) end
  end
  for depth, node in ipairs(decision.nodes) do
    if is_empty then break end
    local before = #leases
    lease_node(leases, node, depth, charges)
    node.more_holds = #leases > before and 1 or 0
  end
  head[#head + 1], head[#head + 2] = 'charges', cmsgpack.pack(kept)
  head[#head + 1], head[#head + 2] = 'leases', cmsgpack.pack(leases)
  redis.call('HSET', hold_key, unpack(head))
end
