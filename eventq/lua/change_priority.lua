#!lua
-- Changes a job's priority, and with it its place in line. A finished job is left as it is.
-- KEYS: meta calls timers jobs runs wait prioritized delayed events marker
-- ARGV: writer, number, id, priority ('' none), to the head of its equals ('1')
-- Reply: OK, u changed, s finished, m missing | STALE | LAYOUT
-- Events: updated
local meta_key, calls_key, timers_key, jobs_key, runs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local wait_key, prioritized_key, delayed_key, events_key, marker_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
-- include: clock
-- include: call
-- include: emit
-- include: held
-- include: runs
-- include: line
-- include: first_place
-- include: wake
if replayed then return {'OK', replayed} end
local id, priority, lifo, verdict = ARGV[3], ARGV[4], ARGV[5] == '1', 'u'
local record = redis.call('HGET', jobs_key, id)
local head, before, flags, rest = string.match(record or '', '^(1\t%d+\t%d*\t)(%d*)\t(%a*)(\t[%w._:/ -]+\t.*)$')
local previous, run_text = is_held(id, '', record)
if not head then
  verdict = 'm'
elseif previous == 'completed' or previous == 'failed' then
  verdict = 's'
else
  local state, run, place = previous, run_text and read_run(run_text), '-'
  local in_line = previous == 'waiting' or previous == 'prioritized'
  if in_line then state = priority ~= '' and 'prioritized' or 'waiting' end
  emit('updated', {'{"job_id":"' .. id .. '","name":"' .. string.match(rest, '^\t([^\t\n]*)') .. '","what":"priority","state":"'
    .. state .. '","previous":"' .. previous .. '","priority":' .. (priority ~= '' and priority or 0) .. '}'})
  local moves = before ~= priority or lifo
  if moves and priority ~= '' and previous ~= 'delayed' then
    place = lifo and first_place(priority) or new_place(priority)
  end
  -- Kept: when it is due it goes to the head; and in line it says that its place is not by its age.
  if moves then flags = string.gsub(flags, 'l', '') .. (lifo and 'l' or '') end
  redis.call('HSET', jobs_key, id, head .. priority .. '\t' .. flags .. rest)
  if run and moves then
    run.state, run.place = state, place
    redis.call('HSET', runs_key, id, write_run(run))
  end
  if in_line and moves then
    -- What stands in `wait` becomes a hole: O(1).
    if previous == 'waiting' then add_to(meta_key, 'holes', 1) else redis.call('ZREM', prioritized_key, id) end
    line_up(id, place, lifo and 'head' or 'tail')
    wake(1)
  end
end
close_call(verdict)
return {'OK', verdict}
