#!lua flags=allow-oom
-- Removes a queue with all it holds: every column goes, freed in the background. What is left for an hour is the stream with the
-- one event that says so, since readers must hear of it; the first event of a new epoch lets it stay. Writers' records go too, so
-- a repetition is known by the epoch, which is another one then.
-- KEYS: meta calls timers events leases jobs data runs results progress logs wait prioritized delayed waiting_children completed
--       failed totals marker dedup schedules slots workers consumers outbox children groups group_turns
-- ARGV: writer, number, epoch, force ('1': though jobs are running)
-- Reply: OK, gone | active | other (the queue is another one, or none), jobs: how many it held, or how many are running | STALE
--        | LAYOUT
-- Events: obliterated
local meta_key, calls_key, timers_key, events_key, leases_key, jobs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local TOLD_MS = 3600000
-- include: clock
-- include: call
-- include: emit
if redis.call('HGET', meta_key, 'epoch') ~= ARGV[3] then return {'OK', 'other', 0} end
-- One member of leases is no job.
local running = math.max(0, redis.call('ZCARD', leases_key) - 1)
if running > 0 and ARGV[4] ~= '1' then return {'OK', 'active', running} end
local held = redis.call('HLEN', jobs_key)
emit('obliterated', {'{"count":' .. held .. '}'})
redis.call('XTRIM', events_key, 'MAXLEN', 1)
redis.call('PEXPIRE', events_key, TOLD_MS)
redis.call('UNLINK', meta_key, calls_key, timers_key, leases_key, jobs_key)
for index = 7, 28 do redis.call('UNLINK', KEYS[index]) end
return {'OK', 'gone', held}
