-- Paths: where below the customer something happens.
--
-- A path is `team:ml/project:chat/user:bob/key:k1`: at most four segments, kinds in that order, each optional, each with a code.
-- Its nodes are its prefixes. The first node of every path is the customer.

local NONE = {}

-- A node, with all that it will have: a table that grows costs more than a larger one. So do lists, which therefore are made
-- with as many nils as they will mostly hold, once something is asked of the node; their length is still that of what they hold.
local function node_of(level, kind, key)
  return {
    level = level, kind = kind, key = key, budget = false, fields = NONE, values = NONE, counters = NONE, rates = NONE,
    uses = NONE, paced = NONE, leases = NONE, gauges = NONE,
    caps = NONE, more_fields = false, more_holds = 0, keeps_level = false,
  }
end

-- The kinds of nodes, in the order in which a path may name them.
local PLACES = { team = 1, project = 2, user = 3, key = 4 }

-- What a path names below the customer: {name, kind} of each node; false where the text is no path.
local path_names = memo(function(path)
  local names, place, name = {}, 0, ''
  for segment in string.gmatch(path .. '/', '([^/]*)/') do
    local kind, code = string.match(segment, '^(%l+):([%w][%w_.%-]*)$')
    if not kind or #code > 64 or (PLACES[kind] or 0) <= place then return false end
    place, name = PLACES[kind], name == '' and segment or name .. '/' .. segment
    names[#names + 1] = { name, kind }
  end
  return names
end, 4096)

-- The nodes of a path, the customer first; nil where the text is no path.
local function read_path(path, counters_key)
  local nodes = { node_of('customer', false, counters_key), nil, nil, nil, nil }
  if path == '' then return nodes end
  local names = path_names(path)
  if not names then return nil end
  for place = 1, #names do
    local name = names[place]
    nodes[place + 1] = node_of(name[1], name[2], counters_key .. '/' .. name[1])
  end
  return nodes
end
