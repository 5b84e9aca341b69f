-- Spend caps: how much money goes in a window, at the customer and at each node.
--
-- A cap is {counter, currency, nanos, ceiling, window, since_ms}. What every priced charge of its currency costs counts, whoever
-- pays it: a wallet, or an invoice later. What open holds have set aside counts too.

-- Whether what the charges cost fits under all caps of their currencies.
local function fit_caps(decision, charges)
  local as_hold = decision.mode == 'hold'
  for _, node in ipairs(decision.nodes) do
    for n = 1, #node.caps, 2 do
      local slot, cap = node.caps[n], node.caps[n + 1]
      for index, charge in ipairs(charges) do
        if charge.tariff and charge.currency == cap[2] then
          local cost = charge.rated
          local nanos = slot.used + slot.held + slot.more_used + slot.more_held + cost
          if not slot.start and not refuse(decision, 'unavailable', index, node, cap[1], 0) then return false end
          if cost > 0 and cap[4] >= 0 and nanos > cap[4] then
            local retry_ms = slot.reset > 0 and slot.reset - decision.at or 0
            if not refuse(decision, 'limit_reached', index, node, cap[1], retry_ms) then return false end
          end
          if nanos > MAX_EXACT then
            decision.fault = 'OVERFLOW quantity'
            return false
          end
          if as_hold then slot.more_held = slot.more_held + cost else slot.more_used = slot.more_used + cost end
        end
      end
    end
  end
  return true
end

return fit_caps
