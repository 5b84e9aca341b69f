-- Paths: where below the customer something happens.
--
-- A path is `team:ml/project:chat/user:bob/key:k1`: at most four segments, kinds in that order, each optional, each with a code.
-- Its nodes are its prefixes. The first node of every path is the customer.

local NONE = {}

-- A node, with all that it will have: a table that grows costs more than a larger one. So do lists, which therefore are made
-- with as many nils as they will mostly hold; their length is still that of what they hold.
local function node_of(level, kind, key)
  return {
    level = level, kind = kind, key = key, budget = false, fields = { nil, nil, nil, nil, nil, nil, nil, nil },
    values = NONE, counters = { nil, nil }, rates = NONE, uses = NONE, paced = NONE, leases = NONE, gauges = NONE,
    caps = NONE, more_fields = false, more_holds = 0, keeps_level = false,
  }
end

local function kind_places()
  return { team = 1, project = 2, user = 3, key = 4 }
end

-- The nodes of a path, the customer first; nil where the text is no path.
local function read_path(path, counters_key)
  local nodes, place, name = { node_of('customer', false, counters_key) }, 0, ''
  if path == '' then return nodes end
  local places = kind_places()
  for segment in string.gmatch(path .. '/', '([^/]*)/') do
    local kind, code = string.match(segment, '^(%l+):([%w][%w_.%-]*)$')
    if not kind or #code > 64 or (places[kind] or 0) <= place then return nil end
    place, name = places[kind], name == '' and segment or name .. '/' .. segment
    nodes[#nodes + 1] = node_of(name, kind, counters_key .. '/' .. name)
  end
  return nodes
end
