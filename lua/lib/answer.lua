-- First answers: what a retry gets back.
--
-- Under an idempotency key stands the packed list {request digest, reply of a decision, reply of a part}. The third is there
-- where a part of a hold was charged under the key; so whoever comes with a decision finds a decision in any case, and a part
-- finds what it was, or that a decision was made in its place.

-- What was answered to this idempotency key; nil where it is new; nil and a fault where the request was another.
local function known_answer(answer_key, request_digest)
  local packed = redis.call('GET', answer_key)
  if not packed then return nil end
  local answer = cmsgpack.unpack(packed)
  if answer[1] ~= request_digest then return nil, 'CONFLICT idempotency' end
  return answer
end

-- The decision that was given to this idempotency key; else as above.
local function first_answer(answer_key, request_digest)
  local answer, fault = known_answer(answer_key, request_digest)
  if not answer then return nil, fault end
  answer[2][2] = 1
  return answer[2]
end

local function remember(answer_key, request_digest, window_ms, reply, part_reply)
  redis.call('SET', answer_key, cmsgpack.pack({ request_digest, reply, part_reply }), 'PX', digits(window_ms))
end
