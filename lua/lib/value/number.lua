-- Numbers come in as text and leave as text; in between they are doubles, exact up to 2^53 - 1.
local MAX_EXACT = 9007199254740991

-- Small numbers and their texts, ready.
local SMALL, TEXTS = {}, {}
for number = 0, 1000 do SMALL[number .. ''], TEXTS[number] = number, number .. '' end

-- A whole number from 0 to 2^53 - 1, or nil. Only digits count: no sign, no point, no exponent, no hexadecimal.
local function whole(text)
  local small = SMALL[text]
  if small then return small end
  if #text <= 16 and string.find(text, '^%d+$') then
    local number = tonumber(text)
    if number <= MAX_EXACT then return number end
  end
  return nil
end

-- The text of a whole number. A command takes numbers as they are: the server writes those below 2^53 without a point.
local function digits(number)
  return TEXTS[number] or string.format('%.0f', number)
end
