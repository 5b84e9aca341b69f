-- First answers: what a retry gets back.
--
-- Under an idempotency key stands the packed list {request digest, reply of a decision, reply of a part}. The third is there
-- where a part of a hold was charged under the key; so whoever comes with a decision finds a decision in any case, and a part
-- finds what it was, or that a decision was made in its place.
--
-- A refusal stands there too, for a shorter time: never longer than until there is room again, so that who waits as long as
-- was told is decided anew. It is the answer of whoever asks whether he may. Work that was done already, a part or a record,
-- is charged as if it did not stand there. `unavailable` is no decision, and is not kept.

local SOON_MS = 1000

-- What was answered to this idempotency key; nil where it is new; nil and a fault where the request was another.
local function known_answer(answer_key, request_digest)
  local packed = redis.call('GET', answer_key)
  if not packed then return nil end
  local answer = cmsgpack.unpack(packed)
  if answer[1] ~= request_digest then return nil, 'CONFLICT idempotency' end
  return answer
end

-- The same, where something was allowed; a refusal is passed over.
local function known_charge(answer_key, request_digest)
  local answer, fault = known_answer(answer_key, request_digest)
  if answer and answer[2][1] ~= 'allowed' then return nil end
  return answer, fault
end

-- The reply of a decision that was made before, packed.
local function replayed(reply)
  reply[2] = 1
  return cmsgpack.pack(reply)
end

-- The decision that was given to this idempotency key; else as above.
local function first_answer(answer_key, request_digest)
  local answer, fault = known_answer(answer_key, request_digest)
  if not answer then return nil, fault end
  return replayed(answer[2])
end

-- Keep a packed reply, and perhaps that of a part: the list of them, put together of what is packed already.
local function remember(answer_key, request_digest, window_ms, packed, part_reply)
  local head = (part_reply and '\147' or '\146') .. cmsgpack.pack(request_digest)
  redis.call('SET', answer_key, head .. packed .. (part_reply and cmsgpack.pack(part_reply) or ''), 'PX', digits(window_ms))
end

-- Keep the answer of a decision: what was allowed for the window, a refusal for at most so long. Returns the answer, packed.
local function keep_answer(answer_key, request_digest, window_ms, refusal_ms, reply)
  local reason, packed = reply[1], cmsgpack.pack(reply)
  if reason ~= 'allowed' then
    local room_ms = reason == 'concurrency_limited' and SOON_MS or reply[12]
    window_ms = math.min(window_ms, refusal_ms, room_ms > 0 and room_ms or refusal_ms)
  end
  if window_ms > 0 and reason ~= 'unavailable' then remember(answer_key, request_digest, window_ms, packed) end
  return packed
end
