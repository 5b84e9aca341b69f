-- The time just gone by, counted in 60 equal buckets.
--
-- A rolling counter keeps `<counter>:b`, the packed list {bucket, units, bucket, units, ...} in ascending order; bucket n
-- holds [n * size, (n + 1) * size), where size is a 60th of the window's length. A bucket counts until it is wholly older
-- than the length, so no span of that length ever holds more than what was let in. `<counter>:w` is the counter's
-- since_ms: what was counted under another one is forgotten.
--
-- Example: 60 units an hour, 10 used at 09:00:30. They count until 10:01:00, when the minute from 09:00 is over an hour old.

-- The slot's buckets, used units and reset (when the oldest bucket leaves; 0 none) from what the hash holds.
local function read_rolling(slot, packed, at)
  local size, buckets, used = slot.window[3] / 60, {}, 0
  local known = packed and not slot.begins and cmsgpack.unpack(packed) or {}
  for n = 1, #known, 2 do
    if (known[n] + 1) * size > at - slot.window[3] then
      buckets[#buckets + 1], buckets[#buckets + 2], used = known[n], known[n + 1], used + known[n + 1]
    end
  end
  slot.buckets, slot.used = buckets, used
  slot.reset = buckets[1] and (buckets[1] + 1) * size + slot.window[3] or 0
end

-- The packed buckets with the units that the slot has gained. A clock that was put back counts in the newest bucket.
local function pack_rolling(slot, at)
  local buckets, bucket = slot.buckets, math.floor(at / (slot.window[3] / 60))
  local count = #buckets
  if slot.more_used == 0 then return cmsgpack.pack(buckets) end
  if count > 0 and buckets[count - 1] >= bucket then
    buckets[count] = buckets[count] + slot.more_used
  else
    buckets[count + 1], buckets[count + 2] = bucket, slot.more_used
  end
  return cmsgpack.pack(buckets)
end

return { read = read_rolling, pack = pack_rolling }
