-- For wrk: asks for the paths in the file named first, one after the other, and tells what the run came to as a line of JSON.
local requests, turn = {}, 0

function init(args)
   for path in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("GET", path)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency, _)
   local failed = 0
   for _, count in pairs(summary.errors) do
      failed = failed + count
   end
   io.write(string.format(
      '\n{"rate": %.1f, "p50": %.3f, "p99": %.3f, "failed": %d, "requests": %d}\n',
      summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, failed,
      summary.requests))
end
