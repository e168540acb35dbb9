#!lua flags=allow-oom
-- Takes jobs back from workers whose lease ran out, promotes what is due, arms the marker again.
-- KEYS: meta calls timers jobs data runs results progress logs wait prioritized delayed leases failed totals events marker
--       slots
-- ARGV: writer, number, lease ms of the sweeper, max stalls, limit, failed keep, failed age ms (-1 none), ms between its sweeps
-- Reply: OK, reclaimed, promoted, more to do (0 or 1), ms until the next lease ends, the next delayed job is due, the next
--        timer ends (-1 none), bytes of events written so far, work in line (0 or 1), ms until the next slot of a schedule
--        (-1 none) | STALE | LAYOUT
-- Events: stalled, failed, removed, waiting
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local wait_key, prioritized_key, delayed_key, leases_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local failed_key, totals_key, events_key, marker_key = KEYS[14], KEYS[15], KEYS[16], KEYS[17]
local slots_key = KEYS[18]
-- include: clock
-- include: call
if call_record then
  -- include: types
end
-- include: emit
-- include: count
-- include: runs
-- include: line
-- include: wake
local PINNED, SLICE, LATE_SWEEPS, LATE = 1125899906842624, 100, 2, 1.25
-- include: forget
-- include: evict
-- include: due
-- include: promote
-- include: reclaim
if replayed then return {'OK', 0, 0, 0, 0, -1, -1, event_bytes, 0, -1} end
local lease, max_stalls, limit = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local marks = redis.call('HMGET', meta_key, 'swept_at', 'late_sweeps', 'short_grace_at')
local swept_at, late = tonumber(marks[1]) or 0, tonumber(marks[2]) or 0
-- The latest first: slice after slice goes to the head of the line, and all of it stands there in order.
local latest, expired = redis.call('ZREVRANGEBYSCORE', leases_key, now, '-inf', 'LIMIT', 0, limit), {}
for index = #latest, 1, -1 do expired[#expired + 1] = latest[index] end
local reclaimed, gap = 0, now - swept_at
-- Who is late again and again sweeps on a loop that others block: nothing stood still, and the dead must not wait for ever.
-- Who is often a little late gives once in a lease: a dead worker's job comes back after two at most.
local is_short, short_at = gap >= 0 and gap <= lease / 2, tonumber(marks[3]) or 0
if not (short_at >= 0 and short_at <= now) then short_at = 0 end
local may_wait = is_short and gap > ARGV[8] * LATE and now - short_at >= lease
  or gap > lease / 2 and late >= 0 and late < LATE_SWEEPS
if may_wait or gap < -lease then
  -- include: grace
elseif #expired > 0 then
  reclaimed = reclaim(expired, max_stalls, tonumber(ARGV[6]), tonumber(ARGV[7]))
end
local promoted = due_in and due_in <= 0 and promote(limit) or 0
local is_late = may_wait and not is_short
redis.call('HSET', meta_key, 'swept_at', now, 'late_sweeps', is_late and late + 1 or 0,
  'short_grace_at', may_wait and is_short and now or short_at)
-- include: totals
local in_line = wake(math.max(1, reclaimed + promoted)) and 1 or 0
close_call('')
local function until_next(key)
  local score = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return score and score ~= 'inf' and math.max(0, math.floor(tonumber(score)) - now) or -1
end
local more = (reclaimed == limit or promoted == limit) and 1 or 0
return {'OK', reclaimed, promoted, more, until_next(leases_key), due_in or -1, until_next(timers_key),
  event_bytes, in_line, until_next(slots_key)}
