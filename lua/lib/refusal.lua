-- How a check ends a decision: with a refusal, which names who refused, or with a fault, which is an error reply.

-- Note a refusal; true where the request is one that is never refused.
local function refuse(decision, reason, index, node, limit, retry_ms)
  if decision.is_record then return true end
  decision.reason, decision.refused, decision.retry_ms = reason, index, retry_ms or 0
  if node then decision.level, decision.limit = node.level, limit end
  return false
end

local function fail(decision, fault)
  decision.fault = fault
  return false
end
