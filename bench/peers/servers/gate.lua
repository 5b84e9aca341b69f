-- What nginx runs: a request becomes one script call, and its reply an answer. The words of the call stand in a file
-- that the bench wrote; feature, quantity and a fresh event id are put in here.
local cjson = require "cjson.safe"
local redis = require "nginx.redis" -- lua-resty-redis, under Debian's name

local IDLE_MS, POOL_COUNT, TIMEOUT_MS = 60000, 64, 1000

local gate = {}

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return assert(cjson.decode(text))
end

local function refuse(status)
  ngx.status = status
  ngx.header.content_length = 0
  return ngx.exit(status)
end

local function answer(said)
  local text = cjson.encode(said)
  ngx.header.content_type = "application/json"
  ngx.header.content_length = #text
  ngx.print(text)
end

function gate.open(path)
  local call = read(path)
  local made, count = string.format("dec_%08x", os.time()), 0
  for _, caller in pairs(call.callers) do
    caller.command = caller.words[1]:lower()
    caller.head, caller.tail = ngx.decode_base64(caller.body[1]), ngx.decode_base64(caller.body[2])
  end

  local function ask(key, feature, quantity)
    local caller = call.callers[key]
    if not caller then return nil, 401 end
    count = count + 1
    local words = {}
    for at = 2, #caller.words do
      local word = caller.words[at]
      if word == "@body" then word = caller.head .. string.format("%s%024x", made, count) .. caller.tail
      elseif word == "@feature" then word = feature
      elseif word == "@quantity" then word = quantity
      end
      words[at - 1] = word
    end
    local client = redis:new()
    client:set_timeout(TIMEOUT_MS)
    local ok = client:connect(call.host, call.port)
    if not ok then return nil, 503 end
    local reply = client[caller.command](client, unpack(words))
    if not reply then return nil, 503 end
    client:set_keepalive(IDLE_MS, POOL_COUNT)
    return reply
  end

  local function is_allowed(reply)
    return reply == 1 or (type(reply) == "string" and reply:find("allowed", 1, true) ~= nil)
  end

  local opened = {}

  function opened.check()
    ngx.req.read_body()
    local asked = cjson.decode(ngx.req.get_body_data() or "")
    if type(asked) ~= "table" or type(asked.feature) ~= "string" then return refuse(400) end
    local reply, status = ask(asked.key, asked.feature, asked.quantity or 1)
    if not reply then return refuse(status) end
    answer({allowed = is_allowed(reply)})
  end

  function opened.authorize()
    local key = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
    local arguments = ngx.req.get_uri_args()
    local reply, status = ask(key, arguments.feature, arguments.quantity)
    if not reply then return refuse(status) end
    if not is_allowed(reply) then return refuse(403) end
    ngx.header.content_length = 0
  end

  return opened
end

return gate
