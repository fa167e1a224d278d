-- Request load for wrk: one fixed request, or one per stream out of many.
--
--   wrk ... -s requests.lua ORIGIN -- METHOD PATH STREAMS ORDER TYPE BODY-FILE
--
-- STREAMS 0: every request goes to PATH. Otherwise PATH holds %d, which becomes 0 to STREAMS-1, in turn (ORDER
-- cycle) or at random (ORDER random). TYPE and BODY-FILE are - when there is no body.

function init(args)
   local streams, order = tonumber(args[3]), args[4]
   wrk.method, wrk.path = args[1], args[2]
   if args[5] ~= "-" then
      wrk.headers["Content-Type"] = args[5]
      local file = assert(io.open(args[6], "rb"))
      wrk.body = file:read("*a")
      file:close()
   end
   if streams > 0 then
      local path, at = wrk.path, -1
      -- Building 100,000 requests up front would cost more memory than building each when it is sent.
      local built = streams <= 1000 and {}
      request = function()
         at = order == "random" and math.random(0, streams - 1) or (at + 1) % streams
         if not built then return wrk.format(nil, string.format(path, at)) end
         if not built[at] then built[at] = wrk.format(nil, string.format(path, at)) end
         return built[at]
      end
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50), latency:percentile(99)))
end
