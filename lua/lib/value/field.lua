-- Fields of a hash, any number of them: Lua hands at most some thousands to one command.

local FIELDS_AT_ONCE = 1000

-- The values of these fields, in their order; false where there is none.
local function read_fields(key, fields)
  local count = #fields
  if count <= FIELDS_AT_ONCE then return redis.call('HMGET', key, unpack(fields)) end
  local values = {}
  for first = 1, count, FIELDS_AT_ONCE do
    local last = math.min(first + FIELDS_AT_ONCE - 1, count)
    local part = redis.call('HMGET', key, unpack(fields, first, last))
    for offset = 1, #part do values[first + offset - 1] = part[offset] end
  end
  return values
end

-- Write {field, value, field, value, ...}.
local function write_fields(key, fields)
  for first = 1, #fields, FIELDS_AT_ONCE do
    redis.call('HSET', key, unpack(fields, first, math.min(first + FIELDS_AT_ONCE - 1, #fields)))
  end
end
