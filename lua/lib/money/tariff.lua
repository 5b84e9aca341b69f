-- The price of units after units, as differences of the cumulative price A(u).
--
-- A tariff is {price_id, currency, package_units, batch, tiers, window}, a tier {upto (0 open), nanos_per_batch,
-- flat_nanos}. Units are rounded up to packages n; tiers are (lo, hi] on n; the flat fee of a tier is due once it is
-- entered; all rates share the denominator `batch`.
--
-- A debit of q units after u costs floor(A(u + q)) - floor(A(u)). A itself is never formed, because a good customer's
-- month may exceed 2^53 nanos: the whole nanos of the span are added tier by tier, and what A(u) left over below
-- a nano is found by modular arithmetic. So only a single debit above 2^53 - 1 nanos is beyond reach.
--
-- Example: 7 nanos for 2 units. Debits of one unit cost 3, 4, 3, 4: after 1 unit A is 3.5, so half a nano is carried.

local function packages(units, package_units)
  if package_units == 1 then return units end
  return math.floor(units / package_units) + (units % package_units > 0 and 1 or 0)
end

-- Whole nanos and the rest in batch-ths of the packages in (from, to]; nil where they are above 2^53 - 1.
local function span_price(tariff, from, to)
  local batch, nanos, rest, low = tariff[4], 0, 0, 0
  for _, tier in ipairs(tariff[5]) do
    local high = tier[1] == 0 and MAX_EXACT or tier[1]
    local first, last = from > low and from or low, to < high and to or high
    if last > first then
      local quotient, part = multiply_divide(tier[2], last - first, batch)
      if not quotient then return nil end
      nanos = nanos + quotient
      if rest >= batch - part then
        nanos, rest = nanos + 1, rest - (batch - part)
      else
        rest = rest + part
      end
      if first == low then nanos = nanos + tier[3] end
      if nanos > MAX_EXACT then return nil end
    end
    if to <= high then break end
    low = high
  end
  return nanos, rest
end

-- What A(n packages) has beyond its whole nanos, in batch-ths.
local function carried_rest(tariff, count)
  local batch, rest, low = tariff[4], 0, 0
  if batch == 1 then return 0 end
  for _, tier in ipairs(tariff[5]) do
    local high = tier[1] == 0 and MAX_EXACT or tier[1]
    if count <= low then break end
    local part = multiply_modulo(tier[2], (count < high and count or high) - low, batch)
    rest = rest >= batch - part and rest - (batch - part) or rest + part
    low = high
  end
  return rest
end

-- floor(A(used + quantity)) - floor(A(used)); nil above 2^53 - 1.
local function debit_nanos(tariff, used, quantity)
  local from, to = packages(used, tariff[3]), packages(used + quantity, tariff[3])
  if from == to then return 0 end
  local nanos, rest = span_price(tariff, from, to)
  if nanos and rest > 0 and rest >= tariff[4] - carried_rest(tariff, from) then nanos = nanos + 1 end
  return nanos and nanos <= MAX_EXACT and nanos or nil
end

-- ceil(A(used + quantity) - A(used)); nil above 2^53 - 1.
local function reserve_nanos(tariff, used, quantity)
  local nanos, rest = span_price(tariff, packages(used, tariff[3]), packages(used + quantity, tariff[3]))
  if nanos and rest > 0 then nanos = nanos + 1 end
  return nanos and nanos <= MAX_EXACT and nanos or nil
end

-- The tariff that stands now for the one that was promised to a hold (false: none): of the same currency, and prepaid if that
-- was; else the promised one.
local function tariff_of(tariffs, currency, promised)
  for _, tariff in ipairs(tariffs) do
    if tariff[2] == currency and tariff[7] == promised[7] then return tariff end
  end
  return promised
end
