-- How a hold gets more: what was decided is added to what it keeps (lib/hold/placing.lua).

-- Have more of each charge decided in the currency in which it was promised, and leave the hold its place under limits of
-- concurrency, which it has already.
local function narrow(charges)
  for _, charge in ipairs(charges) do
    local kept = charge.kept
    local tariff = tariff_of(charge.tariffs, kept[4], kept[5])
    charge.tariffs, charge.keeps_place = tariff and { tariff } or NONE, true
  end
end

-- Add what the decision holds to the hold's leases. A node in which the hold had nothing has one open hold more.
local function add_leases(hold, decision, charges, places)
  local leases, more = hold.leases, list_leases(decision, charges)
  local known, is_leased = {}, {}
  local function name(list, n, place) return table.concat({ list[n], list[n + 1], place, list[n + 3] }, ' ') end
  for n = 1, #leases, 5 do known[name(leases, n, leases[n + 2])], is_leased[leases[n]] = n, true end
  for n = 1, #more, 5 do
    local place = places[more[n + 2]]
    local at = known[name(more, n, place)]
    if at then
      leases[at + 4] = leases[at + 4] + more[n + 4]
    else
      lease(leases, more[n], more[n + 1], place, more[n + 3], more[n + 4])
    end
  end
  for depth, node in ipairs(decision.nodes) do
    if is_leased[depth] then node.more_holds = 0 end
  end
end

-- Add what was decided to the charges that the hold keeps; false where one would pass 2^53 - 1. A grant that is taken from
-- twice in a row is one part.
local function add_charges(charges)
  for _, charge in ipairs(charges) do
    local kept, taken = charge.kept, charge.parts
    local parts = kept[6]
    kept[2], kept[3] = kept[2] + charge.quantity, kept[3] + charge.rated
    if kept[2] > MAX_EXACT or kept[3] > MAX_EXACT then return false end
    for n = 1, #taken, 2 do
      local last = #parts
      if parts[last - 1] == taken[n] then
        parts[last] = parts[last] + taken[n + 1]
      else
        parts[last + 1], parts[last + 2] = taken[n], taken[n + 1]
      end
    end
  end
  return true
end
