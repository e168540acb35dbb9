#!lua flags=allow-oom
-- Lets workers claim again and wakes them.
-- KEYS: meta calls timers wait prioritized events marker
-- ARGV: writer, number
-- Reply: OK, 1 when this call changed it, else 0 | STALE | LAYOUT
-- Events: resumed
local meta_key, calls_key, timers_key = KEYS[1], KEYS[2], KEYS[3]
local wait_key, prioritized_key, events_key, marker_key = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
-- include: clock
-- include: call
-- include: emit
-- include: wake
if replayed then return {'OK', tonumber(replayed)} end
local changed = paused
paused = false
if changed then
  -- Before the event: of all this, HDEL is what a user who only adds may not do, and nothing must be done by half.
  redis.call('HDEL', meta_key, 'paused')
  emit('resumed', {'{}'})
end
wake(4)
close_call(changed and '1' or '0')
return {'OK', changed and 1 or 0}
