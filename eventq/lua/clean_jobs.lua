#!lua flags=allow-oom
-- Removes jobs of one state that have been there long enough, a slice of them per call. Of `wait` it walks from the head: what is
-- removed there is popped, further back it leaves a hole. A line without holes is walked no further than the first job that was
-- added too late, since those behind it came later still.
-- KEYS: meta calls timers jobs data runs results progress logs wait prioritized delayed leases completed failed totals
--       events marker
-- ARGV: writer, number, state, cutoff (ms since the epoch; '-MS': so long before now), most to remove, cursor ('' to begin),
--       reason (cleaned or drained)
-- Reply: OK, cutoff, cursor of the next call ('' at the end), ids removed, as text | STALE | LAYOUT
-- Events: stalled, removed, cleaned
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local wait_key, prioritized_key, delayed_key, leases_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local completed_key, failed_key, totals_key, events_key, marker_key = KEYS[14], KEYS[15], KEYS[16], KEYS[17], KEYS[18]
-- include: clock
-- include: call
if replayed then
  local cutoff, cursor, removed = string.match(replayed, '^([^|]*)|([^|]*)|(.*)$')
  return {'OK', cutoff, cursor, removed}
end
-- include: emit
-- include: count
-- include: forget
-- include: wake
local state, most, cursor, reason = ARGV[3], tonumber(ARGV[5]), ARGV[6], ARGV[7]
local cutoff = tonumber(ARGV[4])
if cutoff <= 0 then cutoff = now + cutoff end
local gone, previous, next_cursor, EXAMINED = {}, state, '', 500

-- Since when the job stands in its state (ms; 0 for a record that cannot be read), nil when it stands elsewhere; and whether
-- it came in at the end of the line and was never moved.
local function since(record, run)
  local added, due, priority, flags = string.match(record, '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t')
  if run then
    local at, ready = string.match(run, '^(%S+) %S+ %d+ (%d+) ')
    return at == state and tonumber(state == 'delayed' and added or ready) or nil, false
  end
  if not added then return 0, false end
  local fresh = due ~= '' and 'delayed' or priority ~= '' and 'prioritized' or 'waiting'
  return fresh == state and tonumber(added) or nil, not string.find(flags, 'l', 1, true)
end

if state == 'waiting' then
  -- include: clean_line
elseif state == 'prioritized' or state == 'delayed' then
  -- include: clean_set
elseif state == 'active' then
  -- include: clean_leases
else
  local PINNED = 1125899906842624
  local key = state == 'completed' and completed_key or failed_key
  gone = redis.call('ZRANGEBYSCORE', key, '-inf', cutoff, 'LIMIT', 0, most)
  if #gone < most then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key, PINNED, PINNED + cutoff, 'LIMIT', 0, most - #gone)) do
      gone[#gone + 1] = id
    end
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
  if #gone == most then next_cursor = 'more' end
  local timers = {}
  for index, id in ipairs(gone) do timers[index] = 'keep ' .. id end
  if #gone > 0 then redis.call('ZREM', timers_key, unpack(timers)) end
end
forget(gone, previous, reason)
if #gone > 0 and reason == 'cleaned' then emit('cleaned', {'{"count":' .. #gone .. ',"state":"' .. state .. '"}'}) end
-- include: totals
wake(1)
local cutoff_text = string.format('%.0f', cutoff)
close_call(cutoff_text .. '|' .. next_cursor .. '|' .. table.concat(gone, ' '))
return {'OK', cutoff_text, next_cursor, table.concat(gone, ' ')}
