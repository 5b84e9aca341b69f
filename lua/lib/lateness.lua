-- What is answered, or kept, instead of a debit: requests that come too late, and refusals that shadow mode does not make.

-- The reply to a request that nobody waits for any more: nothing is read but the clock's offset, and nothing is written.
local function late_reply(charges, snapshot_key, real_ms)
  local at = real_ms + (tonumber(redis.call('HGET', snapshot_key, 'off')) or 0)
  return reply_of({
    reason = 'unavailable', refused = 0, level = '', limit = '', at = at, cost = 0, balance = 0, retry_ms = 0, would = '',
  }, charges, 0, '')
end

-- The entry of a refusal that was not made.
local function append_shadow(decision, charges, place)
  for _, charge in ipairs(charges) do
    if charge.sign == '-' then charge.quantity = -charge.quantity end
  end
  redis.call('XADD', place.stream, '*', 'k', 'shadow', 'b', place.body, 'at', digits(decision.at),
    'q', column(charges, 'quantity'), 'e', place.epoch, 'r', decision.would, 'l', decision.level)
end
