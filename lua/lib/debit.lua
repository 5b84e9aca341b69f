-- What an allowed decision does: the units are counted, nanos leave the grants, and the entry is appended.

-- Write the decision, all of it. A place is {stream, wallet, epoch, real_ms, body}.
local function write_debit(decision, charges, place)
  decision.acted = true
  if decision.has_gauges then gauge_acts().keep(decision.nodes, charges) end
  append_charges(place.stream, {
    kind = 'debit', body = place.body, at = decision.at, moved = decision.moved, epoch = place.epoch,
  }, charges)
  for _, grant_id in ipairs(decision.moved) do move(place.wallet, 'r:' .. grant_id, -decision.moved[grant_id]) end
  write_levels(decision.nodes, decision.at, place.real_ms)
end
