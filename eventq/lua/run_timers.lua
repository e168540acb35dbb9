#!lua flags=allow-oom
-- Ends what has expired, in slices: kept jobs with an age of their own, call records, workers that fell silent; and the queue's own age rules,
-- which must hold on a queue where nothing finishes any more.
-- KEYS: meta calls timers jobs data runs results progress logs completed failed events
--       workers
-- ARGV: writer, number, limit, completed keep, completed age ms, failed keep, failed age ms (-1 none)
-- Reply: OK, timers that ended, more to do (0 or 1) | STALE | LAYOUT
-- Events: removed
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local completed_key, failed_key, events_key, workers_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
-- include: clock
-- include: call
-- include: emit
local PINNED, SLICE, SILENT_MS = 1125899906842624, 100, 600000
-- include: forget
-- include: evict
if replayed then return {'OK', tonumber(replayed), 0} end
local limit = tonumber(ARGV[3])
local ended = redis.call('ZRANGEBYSCORE', timers_key, '-inf', now, 'LIMIT', 0, limit)
local gone = {completed = {}, failed = {}}
for _, timer in ipairs(ended) do
  local what, id = string.match(timer, '^(%a+) (.*)$')
  redis.call('ZREM', timers_key, timer)
  if what == 'keep' then
    local state = string.match(redis.call('HGET', runs_key, id) or '', '^(%a+)')
    if gone[state] then gone[state][#gone[state] + 1] = id end
  elseif what == 'worker' then
    local ends = tonumber(string.match(redis.call('HGET', workers_key, id) or '', '^%S+ (%d+)')) or 0
    if ends + SILENT_MS > now then
      redis.call('ZADD', timers_key, ends + SILENT_MS, timer)
    else
      redis.call('HDEL', workers_key, id)
    end
  elseif what == 'call' then
    -- A writer that is still at work keeps its record: only the time of its last call says whether it is.
    local last = tonumber(string.match(redis.call('HGET', calls_key, id) or '', '^%d+ (%d+)')) or 0
    if last + CALL_KEPT_MS > now then
      redis.call('ZADD', timers_key, last + CALL_KEPT_MS, timer)
    else
      redis.call('HDEL', calls_key, id)
      if id == writer then call_record = nil end -- this call's own: close_call begins a new one, with its timer
    end
  end
end
for state, key in pairs({completed = completed_key, failed = failed_key}) do
  forget(gone[state], state, 'retention')
  if #gone[state] > 0 then redis.call('ZREM', key, unpack(gone[state])) end
end
-- Counts are kept to when jobs finish: only then it is known whose count.
local more = evict(completed_key, 'completed', -1, tonumber(ARGV[5]))
more = evict(failed_key, 'failed', -1, tonumber(ARGV[7])) or more
-- The age rules are looked at once a second: a call that found a whole slice may look again at once.
aged = not more
close_call(tostring(#ended))
return {'OK', #ended, (more or #ended == limit) and 1 or 0}
