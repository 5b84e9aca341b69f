-- First answers: what a retry gets back.

-- The answer that was given to this idempotency key; nil where it is new; nil and a fault where the request was another.
local function first_answer(answer_key, request_digest)
  local packed = redis.call('GET', answer_key)
  if not packed then return nil end
  local answer = cmsgpack.unpack(packed)
  if answer[1] ~= request_digest then return nil, 'CONFLICT idempotency' end
  answer[2][2] = 1
  return answer[2]
end

local function remember(answer_key, request_digest, window_ms, reply)
  redis.call('SET', answer_key, cmsgpack.pack({ request_digest, reply }), 'PX', digits(window_ms))
end
