-- Paths: where below the customer something happens.
--
-- A path is `team:ml/project:chat/user:bob/key:k1`: at most four segments, kinds in that order, each optional, each with a code.
-- Its nodes are its prefixes. The first node of every path is the customer.

local KIND_PLACE = { team = 1, project = 2, user = 3, key = 4 }
local NONE = {}

-- A node, with all that it will have: a table that grows costs more than a larger one.
local function node_of(level, kind, key)
  return {
    level = level, kind = kind, key = key, budget = false, fields = {}, values = NONE, counters = {}, rates = NONE,
    uses = NONE, paced = NONE, leases = NONE, gauges = NONE, caps = NONE, more_fields = false, more_holds = 0,
    keeps_level = false,
  }
end

-- The nodes of a path, the customer first; nil where the text is no path.
local function read_path(path, counters_key)
  local nodes = { node_of('customer', false, counters_key) }
  if path == '' then return nodes end
  local place, name = 0, ''
  for segment in string.gmatch(path .. '/', '([^/]*)/') do
    local kind, code = string.match(segment, '^(%l+):([%w][%w_.%-]*)$')
    if not kind or #code > 64 or (KIND_PLACE[kind] or 0) <= place then return nil end
    place, name = KIND_PLACE[kind], name == '' and segment or name .. '/' .. segment
    nodes[#nodes + 1] = node_of(name, kind, counters_key .. '/' .. name)
  end
  return nodes
end
