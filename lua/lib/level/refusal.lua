-- How a check ends a decision: with a refusal, which names the charge, the level and the limit that refused.

-- Note a refusal; true where the request is one that is never refused.
local function refuse(decision, reason, index, node, limit, retry_ms)
  if decision.mode == 'record' then return true end
  decision.reason, decision.refusal = reason, { index, node and node.level or '', limit, retry_ms }
  return false
end
