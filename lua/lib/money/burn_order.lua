-- Burn order: which of two grants of a wallet burns first; an entry is what `o:<currency>` lists (see lib/money/wallet.lua).
local OVERDRAFT = 2

-- Whether id a sorts before id b, byte by byte; Lua's own < would ask the server's locale.
local function id_before(a, b)
  for index = 1, math.min(#a, #b) do
    local left, right = string.byte(a, index), string.byte(b, index)
    if left ~= right then return left < right end
  end
  return #a < #b
end

-- Whether a grant burns before another.
local function burns_before(a, b)
  if (a[5] == OVERDRAFT) ~= (b[5] == OVERDRAFT) then return b[5] == OVERDRAFT end
  if a[4] ~= b[4] then return a[4] < b[4] end
  if a[3] ~= b[3] then return b[3] == 0 or (a[3] ~= 0 and a[3] < b[3]) end
  if a[5] ~= b[5] then return a[5] < b[5] end
  if a[2] ~= b[2] then return a[2] < b[2] end
  if a[6] ~= b[6] then return a[6] < b[6] end
  return id_before(a[1], b[1])
end
