-- What a hold keeps for its end.
--
-- A hold is one packed map. While it is open it has id, state `open`, deadline_ms (real clock), on_expiry, the names of the
-- customer's keys (snapshot, counters, wallet, customer_holds, stream), body, path, shadow (1: its request was in shadow mode),
-- would and level (for which shadow mode placed it empty; ""), currency (of the first charge that has a price), number (of
-- entries that were numbered under its body; absent: none) and two lists:
--
-- charges: for each charge {feature, units held (or asked for, where it is empty), nanos held, currency (`-` none), tariff as promised
-- (false: none), parts taken of its grants {grant_id, nanos, ...} (none where the tariff is not prepaid)};
-- leases: what is held in the nodes, flat {depth of the node (1: the customer), counter, charge, measure, amount, ...}, where the
-- measure is 1 for the charge's units (a limit or a price), 2 for its nanos (a spend cap), and 0 for one (concurrency, whose
-- counter is the feature).

-- List a counter that holds something of this charge.
local function lease(leases, depth, name, place, measure, amount)
  local n = #leases
  leases[n + 1], leases[n + 2], leases[n + 3], leases[n + 4], leases[n + 5] = depth, name, place, measure, amount
end

-- List what the charges hold at a node. A concurrency limit is held once for each feature, and is written with the node.
local function lease_node(leases, node, depth, charges)
  local known, fields = {}, {}
  for n = 1, #node.uses, 3 do
    local place = node.uses[n]
    lease(leases, depth, node.uses[n + 1].name, place, 1, charges[place].quantity)
  end
  for n = 1, #node.caps, 2 do
    for place, charge in ipairs(charges) do
      if charge.tariff and charge.currency == node.caps[n + 1][2] then
        lease(leases, depth, node.caps[n].name, place, 2, charge.rated)
      end
    end
  end
  for n = 1, #node.leases, 3 do
    local place, field_place = node.leases[n], node.leases[n + 1]
    local field, feature = node.fields[field_place], charges[place].feature
    if not known[feature] then
      known[feature] = true
      lease(leases, depth, feature, place, 0, 1)
      fields[#fields + 1], fields[#fields + 2] = field, digits((tonumber(node.values[field_place]) or 0) + 1)
    end
  end
  node.more_fields = fields
end

-- What a decision holds in its nodes.
local function list_leases(decision, charges)
  local leases = {}
  for place, charge in ipairs(charges) do
    if charge.price then lease(leases, 1, charge.price.name, place, 1, charge.quantity) end
  end
  for depth, node in ipairs(decision.nodes) do
    local before = #leases
    lease_node(leases, node, depth, charges)
    node.more_holds = #leases > before and 1 or 0
  end
  return leases
end

-- Write the hold with its charges and its leases. Where shadow mode did not refuse, it holds nothing of what was asked.
local function place_hold(hold_key, hold, decision, charges)
  local kept, is_empty = {}, decision.would ~= ''
  for index, charge in ipairs(charges) do
    kept[index] = is_empty and { charge.feature, charge.quantity, 0, '-', false, {} }
      or { charge.feature, charge.quantity, charge.rated, charge.currency, charge.tariff, charge.parts }
  end
  hold.charges, hold.leases = kept, is_empty and {} or list_leases(decision, charges)
  redis.call('SET', hold_key, cmsgpack.pack(hold))
end
