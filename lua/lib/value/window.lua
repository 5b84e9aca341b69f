-- Time: the server's own clock, so that gateways with skewed clocks agree, and windows on the tenant's clock, which is the
-- server's plus an offset. Units: milliseconds since the epoch.
--
-- A window is {kind, anchor_ms, every_ms, edges_ms}: 0 LIFETIME, 1 STEPS (edges at anchor + k * every), 2 EDGES (listed,
-- ascending), 3 ROLLING (the last every_ms; see lib/level/rolling.lua). The first three are half-open: the instant of an edge belongs
-- to the window that it starts.

local ROLLING = 3

local function real_now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- How many of the edges are not after the instant.
local function edges_until(edges, at)
  local low, high = 0, #edges + 1
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if edges[middle] <= at then low = middle else high = middle end
  end
  return low
end

-- Start and end of the window that holds the instant (0 and 0 for a lifetime); nil outside the listed edges. Not for rolling.
local function window_at(window, at)
  local kind = window[1]
  if kind == 0 then return 0, 0 end
  if kind == 1 then
    local start = at - (at - window[2]) % window[3]
    return start, start + window[3]
  end
  local edges = window[4]
  local place = edges_until(edges, at)
  if place == #edges then return nil end
  return edges[place], edges[place + 1]
end
