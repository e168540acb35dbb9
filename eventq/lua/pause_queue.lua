#!lua flags=allow-oom
-- Stops claiming on every worker. Adding, promoting and running jobs go on.
-- KEYS: meta calls timers wait prioritized events marker
-- ARGV: writer, number
-- Reply: OK, 1 when this call changed it, else 0 | STALE | LAYOUT
-- Events: paused
local meta_key, calls_key, timers_key = KEYS[1], KEYS[2], KEYS[3]
local wait_key, prioritized_key, events_key, marker_key = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
-- include: clock
-- include: call
-- include: emit
-- include: wake
if replayed then return {'OK', tonumber(replayed)} end
local changed = not paused
paused = true
if changed then
  emit('paused', {'{}'})
  redis.call('HSET', meta_key, 'paused', 1)
end
wake(4)
close_call(changed and '1' or '0')
return {'OK', changed and 1 or 0}
