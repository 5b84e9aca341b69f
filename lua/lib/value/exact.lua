-- Products of two numbers below 2^53 divided by a third, without losing a digit.
--
-- Where the product fits into a double, it is one multiplication. Else the product is never formed: the bits of b are
-- taken from the top, and quotient and remainder of a * (the bits so far) are doubled and, for a set bit, increased
-- by a. The remainder stays below the divisor, so that doubling it gives an even number below 2^54, which is exact.
--
-- Example: 9007199254740991 * 9007199254740991 / 9007199254740990 is 9007199254740992 and more, so it is refused; divided by
-- 9007199254740991 it is 9007199254740991, remainder 0.

-- Quotient and remainder of a * b / divisor; nil where the quotient is above 2^53 - 1.
local function multiply_divide(a, b, divisor)
  local product = a * b
  if product <= MAX_EXACT then
    local rest = product % divisor
    return (product - rest) / divisor, rest
  end
  local whole_part, part = math.floor(a / divisor), a % divisor
  local quotient, rest, bit = 0, 0, 4503599627370496
  while bit >= 1 do
    quotient, rest = quotient * 2, rest * 2
    if rest >= divisor then quotient, rest = quotient + 1, rest - divisor end
    if b >= bit then
      b, quotient = b - bit, quotient + whole_part
      if rest >= divisor - part then
        quotient, rest = quotient + 1, rest - (divisor - part)
      else
        rest = rest + part
      end
    end
    if quotient > MAX_EXACT then return nil end
    bit = bit / 2
  end
  return quotient, rest
end

-- a * b modulo the divisor.
local function multiply_modulo(a, b, divisor)
  local _, rest = multiply_divide(a % divisor, b % divisor, divisor)
  return rest
end
