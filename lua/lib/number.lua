-- Numbers come in as text and leave as text; in between they are doubles, exact up to 2^53 - 1.
local MAX_EXACT = 9007199254740991

-- A whole number from 0 to 2^53 - 1, or nil. Only digits count: no sign, no point, no exponent, no hexadecimal.
local function whole(text)
  if text == '0' then return 0 end
  if #text <= 16 and string.find(text, '^%d+$') then
    local number = tonumber(text)
    if number <= MAX_EXACT then return number end
  end
  return nil
end

local function digits(number)
  return number == 0 and '0' or string.format('%.0f', number)
end
