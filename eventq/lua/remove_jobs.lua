#!lua flags=allow-oom
-- Removes jobs that are not running. One that waits in `wait` leaves a hole there, which a claim drops: O(1), not O(n).
-- KEYS: meta calls timers jobs data runs results progress logs wait prioritized delayed completed failed events marker
--       leases
-- ARGV: writer, number, count, then ids
-- Reply: OK, per job a letter: d removed, a running, m missing | STALE | LAYOUT
-- Events: removed
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local wait_key, prioritized_key, delayed_key = KEYS[10], KEYS[11], KEYS[12]
local completed_key, failed_key, events_key, marker_key, leases_key = KEYS[13], KEYS[14], KEYS[15], KEYS[16], KEYS[17]
-- include: clock
-- include: call
-- include: emit
-- include: forget
-- include: wake
if replayed then return {'OK', replayed} end
local ids, verdicts, gone, holes = {}, {}, {}, 0
for index = 1, tonumber(ARGV[3]) do ids[index] = ARGV[3 + index] end
local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
local states = {prioritized = prioritized_key, delayed = delayed_key, completed = completed_key, failed = failed_key}
local seen = {}
for index, id in ipairs(ids) do
  local state = string.match(runs[index] or '', '^(%S+)')
  if state and not states[state] and state ~= 'waiting' and state ~= 'active' then
    -- A run that cannot be read: only the columns know where its job stands.
    state = redis.call('ZSCORE', leases_key, id) and 'active' or 'waiting'
    for name, key in pairs(states) do
      if redis.call('ZSCORE', key, id) then state = name end
    end
  end
  if not records[index] or seen[id] then
    verdicts[index] = 'm'
  elseif state == 'active' then
    verdicts[index] = 'a'
  else
    if not state then
      local due, priority = string.match(records[index], '^1\t%d+\t(%d*)\t(%d*)')
      -- Of a record that cannot be read only the columns know where its job stands.
      local is_due = due and due ~= '' or not due and redis.call('ZSCORE', delayed_key, id)
      local is_ranked = priority and priority ~= '' or not due and redis.call('ZSCORE', prioritized_key, id)
      state = is_due and 'delayed' or is_ranked and 'prioritized' or 'waiting'
    end
    verdicts[index], seen[id] = 'd', true
    gone[state] = gone[state] or {}
    gone[state][#gone[state] + 1] = id
  end
end
for state, list in pairs(gone) do
  forget(list, state, 'removed')
  if state == 'waiting' then holes = #list else redis.call('ZREM', states[state], unpack(list)) end
  for _, id in ipairs(list) do redis.call('ZREM', timers_key, 'keep ' .. id) end
end
if holes > 0 then add_to(meta_key, 'holes', holes) end
wake(1)
local reply = table.concat(verdicts)
close_call(reply)
return {'OK', reply}
