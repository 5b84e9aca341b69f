-- A request that wrk repeats, and its report as one JSON line: wrk ... -s wrk.lua URL -- METHOD BODY AUTHORIZATION
function init(args)
  wrk.method = args[1]
  if args[2] ~= "" then
    wrk.body = args[2]
    wrk.headers["Content-Type"] = "application/json"
  end
  if args[3] ~= "" then wrk.headers["Authorization"] = args[3] end
end

function done(summary, latency)
  local faults = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"worst_us":%d,"not_allowed":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), latency.max,
    faults.status, faults.connect + faults.read + faults.write + faults.timeout))
end
