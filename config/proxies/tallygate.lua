-- Tallygate behind HAProxy: who may pass, and what a response has cost. haproxy.cfg says where, and for how much.
--
--   http-request lua.tallygate-ask ORDER     asks whether the caller may pass. ORDER is what is charged, as in
--                                            `feature=api.calls&quantity=1` or `mode=hold&...`. A refusal goes to the
--                                            client word for word; who passes has a name in the upstream's headers
--   filter lua.tallygate-settle header NAME  when the response is over, settles what was held by a header of it,
--   filter lua.tallygate-settle bytes        or by the bytes of its body. The client does not wait for that
--
-- The gateway is asked by way of the section `tallygate` of haproxy.cfg. It keeps connections, watches the gateway and
-- is patient for so long as it says there; and it asks once. HAProxy's client in Lua, left alone, opens a connection
-- for each question, and asks again where the answer is late: that would be paid twice.

local DOOR = "abns@tallygate"
local ASK = "http://127.0.0.1/v1/authorize/forward?"
local SETTLE = "http://127.0.0.1/v1/authorize/settle?free=5xx&hold=%s&status=%s&quantity=%s"

local ASKING = { "authorization", "x-api-key", "traceparent" }
-- What a client says in these is taken out; x-tallygate-hold is for nobody but us.
local UPSTREAM = {
  "x-tallygate-customer", "x-tallygate-plan", "x-tallygate-decision", "x-tallygate-would", "x-tallygate-degraded",
  "x-tallygate-hold",
}
local CLIENT = {
  ["ratelimit"] = "txn.tallygate_limit",
  ["ratelimit-policy"] = "txn.tallygate_policy",
  ["x-tallygate-balance"] = "txn.tallygate_balance",
}
-- Of one connection, and not of the answer.
local HOP = { ["connection"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["content-length"] = true }
local REFUSALS = { [400] = true, [401] = true, [402] = true, [403] = true, [422] = true, [429] = true, [503] = true }
local UNDECIDED = '{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",'
  .. '"status":503,"code":"unavailable"}'

local function first(headers, name)
  for _, value in pairs(headers and headers[name] or {}) do
    return value
  end
end

local function get(url, headers)
  return core.httpclient():get({ url = url, dst = DOOR, headers = headers })
end

local function refuse(txn, answer)
  local reply = txn:reply({ status = answer.status, reason = answer.reason, body = answer.body })
  for name, values in pairs(answer.headers) do
    for _, value in pairs(HOP[name] and {} or values) do
      reply:add_header(name, value)
    end
  end
  txn:done(reply)
end

local function undecided(txn)
  local reply = txn:reply({ status = 503, body = UNDECIDED })
  reply:add_header("content-type", "application/problem+json")
  reply:add_header("retry-after", "1")
  txn:done(reply)
end

local function pass(txn, headers)
  for _, name in ipairs(UPSTREAM) do
    local value = first(headers, name)
    txn.http:req_del_header(name)
    if value and name ~= "x-tallygate-hold" then
      txn.http:req_add_header(name, value)
    end
  end
  for name, place in pairs(CLIENT) do
    local value = first(headers, name)
    if value then
      txn:set_var(place, value)
    end
  end
  local hold = first(headers, "x-tallygate-hold")
  if hold then
    txn:set_var("txn.tallygate_hold", hold)
  end
end

local function ask(txn, order)
  local headers = {}
  for _, name in ipairs(ASKING) do
    local value = txn.sf:req_fhdr(name)
    headers[name] = value ~= "" and { value } or nil
  end
  local answer = get(ASK .. order, headers)
  local told = answer.headers
  if answer.status == 200 and first(told, "x-tallygate-decision") then
    pass(txn, told)
  elseif REFUSALS[answer.status] and first(told, "content-type") == "application/problem+json" then
    refuse(txn, answer)
  else
    undecided(txn)
  end
end

core.register_action("tallygate-ask", { "http-req" }, ask, 1)

-- Settlements that wait for their turn. Those who take them are started once in each thread and stay: HAProxy 2.6 never
-- forgets a task that it was given.
local SETTLERS = 4
local IDLE_MS = 25
local waiting, taken, given = {}, 0, 0

local function take_turns()
  while true do
    if taken < given then
      taken = taken + 1
      local url = waiting[taken]
      waiting[taken] = nil
      pcall(get, url) -- what is lost is charged when the hold ends
    else
      core.msleep(IDLE_MS)
    end
  end
end

local function settle(url)
  if given == 0 then
    for _ = 1, SETTLERS do
      core.register_task(take_turns)
    end
  end
  given = given + 1
  waiting[given] = url
end

local Settlement = { id = "tallygate", flags = filter.FLT_CFG_FL_HTX }

function Settlement:new()
  return setmetatable({ bytes = 0 }, { __index = self })
end

function Settlement:http_headers(txn, message)
  if message.channel:is_resp() then
    if self.args[1] == "bytes" then
      filter.register_data_filter(self, message.channel)
    else
      self.used = first(message:get_headers(), self.args[2]:lower())
      message:del_header(self.args[2])
    end
  end
  return filter.CONTINUE
end

function Settlement:http_payload(txn, message)
  self.bytes = self.bytes + message:input()
end

function Settlement:end_analyze(txn, channel)
  local hold = channel:is_resp() and txn:get_var("txn.tallygate_hold")
  if not hold then
    return filter.CONTINUE
  end
  local used = self.args[1] == "bytes" and self.bytes or self.used or ""
  settle(SETTLE:format(hold, txn:get_var("txn.tallygate_status") or 0, used))
  return filter.CONTINUE
end

core.register_filter("tallygate-settle", Settlement, function(settlement, args)
  settlement.args = args
  return settlement
end)
