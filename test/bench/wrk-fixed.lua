-- Repeats one request for wrk, and prints what came of it as JSON. Arguments: method, path, body, lines of headers.

local fixed

function init(args)
  local headers = {}
  for index = 4, #args do
    local name, value = args[index]:match("^([^:]+): (.*)$")
    headers[name] = value
  end
  local body = args[3]
  if args[1] == "GET" then body = nil end
  fixed = wrk.format(args[1], args[2], headers, body)
end

function request()
  return fixed
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answered":%d,"seconds":%.6f,"p50Ms":%.3f,"p99Ms":%.3f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
