-- What wrk sends: one call after another of a file, around and around, and at the end the figures as JSON.

local calls, at = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local path, token, body = line:match("^(%S+) (%S+) (.*)$")
    local headers = {["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json"}
    calls[#calls + 1] = wrk.format("POST", path, headers, body)
  end
  math.randomseed(os.time())
  at = math.random(#calls)
end

function request()
  at = at % #calls + 1
  return calls[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"calls": %d, "microseconds": %d, "p50": %d, "p99": %d, "failed": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
