-- The only marker. Ends every script that can make work claimable: work exists and the queue runs -> arm as many
-- members as workers could be useful (each pop wakes one blocked worker), else clear. A hint, never the work itself.
-- Needs: paused, wait_key, prioritized_key, marker_key.
local MARKERS = 4
local function wake(jobs)
  if not paused and (redis.call('LLEN', wait_key) > 0 or redis.call('ZCARD', prioritized_key) > 0) then
    for member = 0, math.min(jobs, MARKERS) - 1 do redis.call('ZADD', marker_key, 0, member) end
  else
    redis.call('ZREM', marker_key, 0, 1, 2, 3)
  end
end
