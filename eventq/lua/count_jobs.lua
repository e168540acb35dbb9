#!lua flags=no-writes
-- Counts the jobs of every state, and says whether the queue is paused. O(1) per state.
-- KEYS: meta wait prioritized delayed leases waiting_children completed failed
-- ARGV: none
-- Reply: OK, paused (0 or 1), waiting, prioritized, delayed, active, waiting_children, completed, failed | LAYOUT
-- Events: none
local meta_key = KEYS[1]
-- include: layout
local meta = redis.call('HMGET', meta_key, 'paused', 'holes')
local reply = {'OK', meta[1] == '1' and 1 or 0, redis.call('LLEN', KEYS[2]) - (tonumber(meta[2]) or 0)}
for index = 3, 8 do reply[#reply + 1] = redis.call('ZCARD', KEYS[index]) end
-- One member of leases is no job.
reply[6] = math.max(0, reply[6] - 1)
return reply
