#!lua
-- Stores a schedule, new or changed, if it is still as it was read.
-- KEYS: meta calls timers schedules slots
-- ARGV: writer, number, id, revision and next slot as read ('' for a new one), standing (the header after the revision),
--       definition ('' leaves the stored one), how many schedules there may be
-- Reply: OK, set | conflict | full | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, schedules_key, slots_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', replayed} end
local id, verdict = ARGV[3], 'set'
-- include: schedule
if revision ~= ARGV[4] or next_slot ~= ARGV[5] then
  verdict = 'conflict'
elseif record == '' and redis.call('HLEN', schedules_key) >= tonumber(ARGV[8]) then
  verdict = 'full'
else
  local definition = ARGV[7] ~= '' and ARGV[7] or string.match(record, '\n(.*)$')
  -- No two calls are alike, so no revision comes twice, whatever was removed in between.
  store_schedule(writer .. '.' .. number, ARGV[6], definition)
end
close_call(verdict)
return {'OK', verdict}
