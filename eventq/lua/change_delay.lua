#!lua
-- Changes when a delayed job is due. A job in another state is left as it is.
-- KEYS: meta calls timers jobs runs delayed events marker wait prioritized
-- ARGV: writer, number, id, due ('+MS' from now, '@MS' since the epoch)
-- Reply: OK, u changed, s in another state, m missing | STALE | LAYOUT
-- Events: delayed
local meta_key, calls_key, timers_key, jobs_key, runs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local delayed_key, events_key, marker_key, wait_key, prioritized_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
-- include: clock
-- include: call
-- include: emit
-- include: runs
-- include: line
if replayed then return {'OK', replayed} end
local id, verdict = ARGV[3], 'u'
local record = redis.call('HGET', jobs_key, id)
if not record then verdict = 'm' elseif not redis.call('ZSCORE', delayed_key, id) then verdict = 's' end
if verdict == 'u' then
  local due = tonumber(string.sub(ARGV[4], 2))
  if string.sub(ARGV[4], 1, 1) == '+' then due = now + due end
  due = math.max(due, now)
  local run = read_run(redis.call('HGET', runs_key, id) or '') or {state = 'delayed', token = '-', finished = 0, started = 0,
    starts = 0, fails = 0, stalls = 0, releases = 0, place = '-', worker = '-'}
  run.ready = string.format('%.0f', due)
  local name = string.match(record, '^1\t%d+\t%d*\t%d*\t%a*\t([%w._:/ -]+)\t') or '__other__'
  emit('delayed', {'{"job_id":"' .. id .. '","name":"' .. name .. '","state":"delayed","previous":"delayed","due_ms":'
    .. run.ready .. '}'})
  redis.call('HSET', runs_key, id, write_run(run))
  redis.call('ZREM', delayed_key, id)
  local soonest = due
  -- include: arm_due
  delay_until(id, due)
end
close_call(verdict)
return {'OK', verdict}
