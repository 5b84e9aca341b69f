-- What consume and record do: what is due ends, the charges are decided on, and what is allowed is written.

-- Write what is allowed: units are counted, nanos leave the grants, and the entry is appended. A place is {stream, wallet,
-- epoch, real_ms, body}.
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

-- Decide on the charges and write it, all of it; a place is one of `decide` too, and has shard_holds,
-- customer_holds and has_due. Returns the reply; or nil and what is wrong.
local function debit(charges, nodes, place, mode, is_shadow)
  if place.has_due then hold_acts.sweep_due(place.customer_holds, place) end
  local decision = decide(charges, nodes, place, mode, is_shadow)
  if decision.fault then return nil, decision.fault end
  if decision.would ~= '' then
    late_acts.append_shadow(decision, charges, place)
  elseif decision.reason == 'allowed' then
    write_debit(decision, charges, place)
  end
  return reply_of(decision, charges, 0, '')
end
