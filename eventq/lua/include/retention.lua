-- What is kept of finished jobs. A rule is text: '' the queue's own rule, '0' remove now, 'forever', 'count:N',
-- 'age:MS', 'count:N age:MS'. Jobs with an age of their own (or for ever) stand in their set above PINNED, out of reach of
-- the queue's rule; their own age is a timer. Needs: now, forget, meta, aged, timers_key.
local PINNED, SLICE = 1125899906842624, 100
local function finished_score(id, rule)
  if rule == '' then return now_text end
  local age = string.match(rule, 'age:(%d+)')
  if age then redis.call('ZADD', timers_key, now + age, 'keep ' .. id) end
  return (rule == 'forever' or age) and now + PINNED or now_text
end

-- Removes the oldest beyond `keep` jobs, or older than `age` ms (-1: no such rule), a slice of them at a time: by count once
-- a whole slice (1 % of what is kept, 100 at most) is too many, by age once a second, so that the cost is shared.
local function evict(key, state, keep, age)
  local ids = {}
  if keep >= 0 and redis.call('ZCARD', key) - keep > math.min(SLICE, math.floor(keep / 100)) then
    local excess = redis.call('ZCOUNT', key, '-inf', '(' .. PINNED) - keep
    if excess > 0 then ids = redis.call('ZRANGE', key, 0, math.min(excess, 2 * SLICE) - 1) end
  end
  if age >= 0 and #ids == 0 and now - (tonumber(meta[6]) or 0) >= 1000 then
    aged = true
    ids = redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. (now - age), 'LIMIT', 0, 2 * SLICE)
  end
  if #ids == 0 then return false end
  forget(ids, state, 'retention')
  redis.call('ZREM', key, unpack(ids))
  return #ids == 2 * SLICE
end
