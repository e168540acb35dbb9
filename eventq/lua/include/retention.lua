-- What is kept of finished jobs. A rule is text: '' the queue's own rule, '0' remove now, 'forever', 'count:N',
-- 'age:MS', 'count:N age:MS'. Jobs with an age of their own (or for ever) stand in their set above PINNED, out of reach of
-- the queue's rule; their own age is a timer. Needs: now, emit, meta, aged, timers_key and the record columns.
local PINNED, SLICE = 1125899906842624, 100
-- include: forget
-- include: evict
local function finish(key, state, jobs, keep, age)
  local scores, gone, by_queue, size = {}, {}, false, 0
  for index, id in ipairs(jobs.ids) do
    local rule, score = jobs.rules[index], now_text
    if rule == '' then
      by_queue = true
    elseif rule == '0' then
      gone[#gone + 1], score = id, nil
    else
      local own, own_age = string.match(rule, 'count:(%d+)'), string.match(rule, 'age:(%d+)')
      if own then keep = keep < 0 and tonumber(own) or math.min(keep, tonumber(own)) end
      if own_age then redis.call('ZADD', timers_key, now + own_age, 'keep ' .. id) end
      if own_age or not own then score = now + PINNED end
    end
    if score then
      scores[size + 1], scores[size + 2] = score, id
      size = size + 2
    end
  end
  forget(gone, state, 'retention')
  if size == 0 then return end
  redis.call('ZADD', key, unpack(scores))
  evict(key, state, keep, by_queue and age or -1)
end
