#!lua flags=allow-oom
-- Writes events that are no transition: a worker that started, stopped, or ran into trouble.
-- KEYS: meta calls timers events
-- ARGV: writer, number, kind, count, then per event: a JSON object
-- Reply: OK, seq of the last event | STALE | LAYOUT
-- Events: error, worker_started, worker_stopped
local meta_key, calls_key, timers_key, events_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: clock
-- include: call
-- include: emit
if replayed then return {'OK', tonumber(replayed)} end
local events = {}
for index = 1, tonumber(ARGV[4]) do events[index] = ARGV[4 + index] end
emit(ARGV[3], events)
close_call(string.format('%.0f', seq))
return {'OK', seq}
