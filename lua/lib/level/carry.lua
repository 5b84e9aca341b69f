-- Units that a window did not use and that the next one has too.
--
-- carried_n = min(carry_units, max(0, units + carried_(n-1) - used_(n-1))). A window that nobody used passes on its units as well,
-- so what is carried over a gap has a closed form, and work does not grow with the gap.
--
-- Example: 100 units a month, at most 150 carried. 30 used in January: February has 170, and if nobody uses it, March has 250.

-- How many edges of the window lie before or at the instant, counted from any fixed one.
local function edge_number(window, at)
  if window[1] == 1 then return math.floor((at - window[2]) / window[3]) end
  return window[1] == 2 and edges_until(window[4], at) or 0
end

-- What is carried into the window that starts now: from the counter's last one, or from since_ms where it has not counted since.
-- `known` has start (nil: never counted), used and carried, as stored.
local function carried_units(slot, known)
  local units, most = slot.carries[2], slot.carries[6]
  if known.start == slot.start then return math.min(known.carried, most) end
  local start, left = known.start, units - known.used + known.carried
  if not start or start < slot.since then
    if slot.since == 0 then return 0 end
    start, left = slot.since, units
  end
  local steps = edge_number(slot.window, slot.start) - edge_number(slot.window, start)
  if steps < 1 then return 0 end
  return math.min(most, math.max(0, left) + (steps - 1) * units)
end

return carried_units
