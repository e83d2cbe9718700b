-- Makes the requests of a load for wrk, the same that request-stream.ts makes, and prints what came of them as JSON.
-- Arguments: method, bucket, order, first key number, count of key numbers, bytes of a value, token.

local order, first, count
local head, tail
local offset = -1

function init(args)
  local method, bytes, token = args[1], tonumber(args[6]), args[7]
  order, first, count = args[3], tonumber(args[4]), tonumber(args[5])
  math.randomseed(first + os.time())
  head = method .. " /" .. args[2] .. "/"
  local length, body = "", ""
  if method == "POST" then
    length = "Content-Length: " .. bytes .. "\r\n"
    body = '"' .. string.rep("x", bytes - 2) .. '"'
  end
  tail = " HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " .. token .. "\r\n" .. length .. "\r\n" .. body
end

function request()
  if order == "random" then
    offset = math.random(0, count - 1)
  else
    offset = offset + 1
    if offset >= count then offset = 0 end
  end
  local number = first + offset
  local within = number % 1000
  return head .. (100000 + (number - within) / 1000) .. "-" .. (1000 + within) .. tail
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"answered":%d,"seconds":%.6f,"p50Ms":%.3f,"p99Ms":%.3f,"refused":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
