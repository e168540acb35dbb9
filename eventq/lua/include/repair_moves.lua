-- Writes what repair_jobs has decided. Lost leases first, since what is not stored is taken out of the line they go to.
if #rebuilt > 0 then redis.call('HSET', runs_key, unpack(rebuilt)) end
if #taken_back > 0 then reclaim(taken_back, tonumber(ARGV[3]), -1, -1) end
for state, list in pairs(gone) do
  forget(list, state, 'repaired')
  if state == 'prioritized' then redis.call('ZREM', prioritized_key, unpack(list)) end
  for index, id in ipairs(list) do list[index] = 'keep ' .. id end
  redis.call('ZREM', timers_key, unpack(list))
end
if #nameless > 0 then
  for _, key in ipairs({data_key, runs_key, results_key, progress_key, logs_key}) do redis.call('HDEL', key, unpack(nameless)) end
end
if holes > 0 then add_to(meta_key, 'holes', holes) end
for set, list in pairs(wrong) do redis.call('ZREM', SETS[set], unpack(list)) end
for _, move in ipairs(moves) do
  local id, own, run = move[1], move[2], move[3]
  local due, priority = string.match(move[4], '^1\t%d+\t(%d*)\t(%d*)')
  if own == 1 then
    redis.call('ZADD', prioritized_key, run and run.place or new_place(priority), id)
  elseif own == 2 then
    local soonest = tonumber(run and run.ready or due)
    -- include: arm_due
    delay_until(id, soonest)
  else
    -- With a timer of its own it is out of reach of the queue's rule.
    local is_pinned = redis.call('ZSCORE', timers_key, 'keep ' .. id)
    redis.call('ZADD', SETS[own], string.format('%.0f', run.finished + (is_pinned and PINNED or 0)), id)
  end
end
