#!lua flags=allow-oom
-- Records what running jobs came to and claims new ones, a batch of each.
-- KEYS: meta calls timers jobs data runs results progress logs wait prioritized delayed leases completed failed totals
--       events marker
-- ARGV: writer, number, worker, lease ms, jobs wanted, queue's rules: completed keep, completed age ms, failed keep, failed
--       age ms (-1 none), progress count, settle count, max stalls (0: nothing is a last chance), whether one job on its last
--       chance may be claimed ('1'), then progress: (id, token, fragment, value), then settle: (id, token, word, fragment,
--       body, extra). Words: completed, failed, exhausted (extra: retention rule), retry and postpone (extra:
--       delay ms).
-- Reply: OK, now, fence of the first claimed job, ms until the next delayed job (-1 none), indexes (from 0) of settles whose
--        token is stale, as text, what tokens begin with (each ends with the job's position, from 0), then per claimed
--        job: id, record ('' when taken away since), '' or its run ('' for a first one) LF data kept apart | STALE | LAYOUT
-- Events: progress, completed, retrying, failed, delayed, removed, waiting, active, drained
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local wait_key, prioritized_key, delayed_key, leases_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local completed_key, failed_key, totals_key, events_key, marker_key = KEYS[14], KEYS[15], KEYS[16], KEYS[17], KEYS[18]
local worker, lease, wanted = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local progressed, settled = tonumber(ARGV[10]), tonumber(ARGV[11])
-- include: clock
-- include: call
if replayed then
  -- include: replay
end
-- include: emit
-- include: leases
-- What a call does not need is not even defined in it: functions are made anew by every call.
local totals, stale, came_back, ids = {}, '', 0, {}
if progressed > 0 then
  -- include: progress
end
if settled > 0 then
  -- include: settle
end
-- include: due
if due_in and due_in <= 0 then
  -- include: runs
  -- include: line
  -- include: promote
  came_back = came_back + promote(100)
end
local left = false
local reply = {'OK', now, seq + 1, due_in or -1, stale, writer .. '.' .. number .. '.'}
if wanted > 0 and not paused then
  -- include: claim
end
-- A settle that records nothing ends no job, so it drains nothing.
if settled > 0 and seq >= first_seq and #ids == 0 and redis.call('ZCARD', leases_key) <= 1
  and redis.call('LLEN', wait_key) == 0 and redis.call('ZCARD', prioritized_key) == 0 then
  emit('drained', {'{}'})
end
-- include: totals
-- A call that settles and claims as much as it wanted leaves the markers as they are: nobody became idle by it. Work that
-- came into line, and work left over by a worker that was woken, is for others to know.
if settled == 0 and not left or came_back > 0 then
  -- include: wake
  wake(math.max(1, came_back))
end
close_call(reply[3] .. '|' .. stale .. '|' .. table.concat(ids, ' '))
return reply
