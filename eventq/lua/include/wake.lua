-- The only marker. Ends every script that can make work claimable: work exists and the queue runs -> arm as many
-- members as workers could be useful (each pop wakes one blocked worker), else clear. A hint, never the work itself.
-- Needs: paused, wait_key, prioritized_key, marker_key. `jobs`: how many came into line; `sure`: the line is not empty.
-- Returns whether there is work.
local function wake(jobs, sure)
  if paused or not (sure or redis.call('LLEN', wait_key) > 0 or redis.call('ZCARD', prioritized_key) > 0) then
    redis.call('ZREM', marker_key, 0, 1, 2, 3)
    return false
  end
  if jobs == 1 then
    redis.call('ZADD', marker_key, 0, 0)
  else
    redis.call('ZADD', marker_key, 0, 0, 0, 1, 0, 2, 0, 3)
  end
  return true
end
