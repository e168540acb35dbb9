-- What is kept of finished jobs. A rule is text: '' the queue's own rule, '0' remove now, 'forever', 'count:N',
-- 'age:MS', 'count:N age:MS'. A job's own age is a timer. Jobs with an own age alone (or for ever) stand in their set above
-- PINNED, out of reach of every other rule. A count is kept by evicting the oldest, so a job with one stands where it can be
-- evicted, and takes its timer along then (meta.own_ages). Needs: now, emit, meta, aged, timers_key, the record columns.
local PINNED, SLICE = 1125899906842624, 100
-- include: forget
-- include: evict
local function finish(key, state, jobs, keep, age)
  local scores, gone, by_queue, own_ages, size, least = {}, {}, false, false, 0, -1
  for index, id in ipairs(jobs.ids) do
    local rule, score = jobs.rules[index], now_text
    if rule == '' then
      by_queue = true
    elseif rule == '0' then
      gone[#gone + 1], score = id, nil
    else
      local own, own_age = string.match(rule, 'count:(%d+)'), string.match(rule, 'age:(%d+)')
      if own then least = least < 0 and tonumber(own) or math.min(least, tonumber(own)) end
      if own_age then redis.call('ZADD', timers_key, now + own_age, 'keep ' .. id) end
      if own then own_ages = own_ages or own_age else score = now + PINNED end
    end
    if score then
      scores[size + 1], scores[size + 2] = score, id
      size = size + 2
    end
  end
  forget(gone, state, 'retention')
  if size == 0 then return end
  redis.call('ZADD', key, unpack(scores))
  if own_ages then redis.call('HSET', meta_key, 'own_ages', 1) end
  -- The smallest count among the rules of these jobs; the queue's rule is one of them only where a job has none of its own.
  if not by_queue then keep, age = least, -1 elseif least >= 0 then keep = keep < 0 and least or math.min(keep, least) end
  evict(key, state, keep, age)
end
