#!lua
-- Stores a schedule, new or changed, if it is still as it was read.
-- KEYS: meta calls timers schedules slots events
-- ARGV: writer, number, id, revision and next slot as read ('' for a new one), standing (the header after the revision),
--       definition ('' leaves the stored one), how many schedules there may be, due slots that the change leaves out, the first of
--       them, the last
-- Reply: OK, set | conflict | full | STALE | LAYOUT
-- Events: schedule_missed
local meta_key, calls_key, timers_key = KEYS[1], KEYS[2], KEYS[3]
local schedules_key, slots_key, events_key = KEYS[4], KEYS[5], KEYS[6]
-- include: clock
-- include: call
-- include: emit
if replayed then return {'OK', replayed} end
local id, verdict = ARGV[3], 'set'
-- include: schedule
if revision ~= ARGV[4] or next_slot ~= ARGV[5] then
  verdict = 'conflict'
elseif record == '' and redis.call('HLEN', schedules_key) >= tonumber(ARGV[8]) then
  verdict = 'full'
else
  if ARGV[9] ~= '0' then
    emit('schedule_missed', {'{"schedule_id":"' .. id .. '","count":' .. ARGV[9] .. ',"first_ms":' .. ARGV[10]
      .. ',"last_ms":' .. ARGV[11] .. ',"policy":"changed"}'})
  end
  local definition = ARGV[7] ~= '' and ARGV[7] or string.match(record, '\n(.*)$')
  -- No two calls are alike, so no revision comes twice, whatever was removed in between.
  store_schedule(writer .. '.' .. number, ARGV[6], definition)
end
close_call(verdict)
return {'OK', verdict}
