-- What is kept of finished jobs. A rule is text: '' the queue's own rule, '0' remove now, 'forever', 'count:N',
-- 'age:MS', 'count:N age:MS'. Jobs with an age of their own (or for ever) stand in their set above PINNED, out of reach of
-- the queue's rule; their own age is a timer. Needs: now, forget, timers_key.
local PINNED = 1125899906842624
local function finished_score(id, rule)
  local age = string.match(rule, 'age:(%d+)')
  if age then redis.call('ZADD', timers_key, now + age, 'keep ' .. id) end
  return (rule == 'forever' or age) and now + PINNED or now
end

-- Removes the oldest beyond `keep` jobs or older than `age` ms (-1: no such rule), at most `limit`.
local function evict(key, state, keep, age, limit)
  local excess = keep >= 0 and redis.call('ZCOUNT', key, '-inf', '(' .. PINNED) - keep or 0
  local ids = {}
  if excess > 0 then ids = redis.call('ZRANGE', key, 0, math.min(excess, limit) - 1) end
  if age >= 0 and #ids < limit then
    local old = redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. (now - age), 'LIMIT', #ids, limit - #ids)
    for _, id in ipairs(old) do ids[#ids + 1] = id end
  end
  if #ids == 0 then return end
  forget(ids, state, 'retention')
  redis.call('ZREM', key, unpack(ids))
end
