#!lua flags=allow-oom
-- Removes a queue with all it holds: every column goes, freed in the background. Left for a day are readers' positions and the
-- stream with the one event that tells them; the first event of a new epoch lets the stream stay, a reader its positions. Writers'
-- records go too, so a repetition is known by the epoch, which is another one then.
-- KEYS: meta calls timers events consumers leases jobs totals data runs results progress logs wait prioritized delayed
--       waiting_children completed failed marker dedup schedules slots workers outbox children groups group_turns
-- ARGV: writer, number, epoch, force ('1': though jobs are running)
-- Reply: OK, gone | active | other (the queue is another one, or none), jobs: how many it held, or how many are running | STALE
--        | LAYOUT
-- Events: obliterated
local meta_key, calls_key, timers_key, events_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local consumers_key, leases_key, jobs_key, totals_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local TOLD_MS = 86400000
-- include: clock
-- include: call
-- include: emit
if redis.call('HGET', meta_key, 'epoch') ~= ARGV[3] then return {'OK', 'other', 0} end
-- One member of leases is no job.
local running = math.max(0, redis.call('ZCARD', leases_key) - 1)
if running > 0 and ARGV[4] ~= '1' then return {'OK', 'active', running} end
local held = redis.call('HLEN', jobs_key)
-- The totals go with it, so the last event says what they came to: a reader that was behind can still tell exactly.
local totals, flat = {}, redis.call('HGETALL', totals_key)
totals[1] = '"busy_ms":' .. (redis.call('HGET', meta_key, 'busy_ms') or '0')
for index = 1, #flat, 2 do totals[#totals + 1] = '"' .. flat[index] .. '":' .. flat[index + 1] end
emit('obliterated', {'{"count":' .. held .. ',"totals":{' .. table.concat(totals, ',') .. '}}'})
-- Not trimmed, which would free it here and now. The last entry keeps its id: a new stream might give it one that is lower than
-- what readers have seen.
local last = redis.call('XREVRANGE', events_key, '+', '-', 'COUNT', 1)[1]
redis.call('UNLINK', meta_key, calls_key, timers_key, events_key, leases_key, jobs_key, totals_key)
redis.call('XADD', events_key, last[1], unpack(last[2]))
redis.call('PEXPIRE', events_key, TOLD_MS)
redis.call('PEXPIRE', consumers_key, TOLD_MS)
for index = 9, 28 do redis.call('UNLINK', KEYS[index]) end
return {'OK', 'gone', held}
