-- What is answered, or kept, instead of a debit: requests that come too late, and refusals that shadow mode does not make.

-- The reply to a request that nobody waits for any more: nothing is read but the clock's offset, and nothing is written.
local function late_reply(charges, place)
  local at = place.real_ms + (tonumber(redis.call('HGET', place.snapshot, 'off')) or 0)
  local refused = { reason = 'unavailable', would = '', at = at, cost = 0, balance = 0 }
  return cmsgpack.pack(reply_of(refused, charges, 0, ''))
end

-- The entry of a refusal that was not made.
local function append_shadow(decision, charges, place)
  for _, charge in ipairs(charges) do
    if charge.sign == '-' then charge.quantity = -charge.quantity end
  end
  redis.call('XADD', place.stream, '*', 'k', 'shadow', 'b', place.body, 'at', digits(decision.at),
    'q', column(charges, 'quantity'), 'e', place.epoch, 'r', decision.would, 'l', decision.refusal[2],
    unpack(place.number or NONE))
end

return { reply = late_reply, append_shadow = append_shadow }
