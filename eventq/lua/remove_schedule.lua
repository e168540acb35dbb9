#!lua flags=allow-oom
-- Removes a schedule. The jobs that it made stay.
-- KEYS: meta calls timers schedules slots
-- ARGV: writer, number, id
-- Reply: OK, 1 (0: there was none) | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, schedules_key, slots_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', tonumber(replayed)} end
local removed = redis.call('HDEL', schedules_key, ARGV[3])
redis.call('ZREM', slots_key, ARGV[3])
close_call(removed)
return {'OK', removed}
