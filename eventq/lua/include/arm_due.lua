-- A job due before all others: a blocked worker must learn that it may not sleep so long. Needs: soonest, delayed_key, marker_key.
local earliest = tonumber(redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2])
if not earliest or soonest < earliest then redis.call('ZADD', marker_key, 0, 'due') end
