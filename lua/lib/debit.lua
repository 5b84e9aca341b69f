-- What an allowed decision does: the units are counted, nanos leave the grants, and the entry is appended.

-- Write the decision, all of it. A place is {stream, wallet, epoch, real_ms, body}.
local function write_debit(decision, charges, place)
  local moved = decision.moved
  decision.acted = true
  if decision.has_gauges then gauge_acts.keep(decision.nodes, charges) end
  append_charges(place.stream, {
    kind = 'debit', body = place.body, at = decision.at, moved = moved, epoch = place.epoch,
  }, charges)
  for n = 1, #moved do
    if moved[moved[n]] > 0 then redis.call('HINCRBY', place.wallet, 'r:' .. moved[n], -moved[moved[n]]) end
  end
  write_levels(decision.nodes, decision.at, place.real_ms)
end
