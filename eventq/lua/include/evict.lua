-- Removes the oldest beyond `keep` jobs, or older than `age` ms (-1: no such rule), a slice of them at a time: by count once
-- a whole slice (1 % of what is kept, 100 at most) is too many, by age once a second, so that the cost is shared.
-- Needs: now, forget, meta, aged, PINNED, SLICE, meta_key, timers_key. Returns whether there may be more.
local function evict(key, state, keep, age)
  local ids = {}
  if keep >= 0 and redis.call('ZCARD', key) - keep > math.min(SLICE, math.floor(keep / 100)) then
    local excess = redis.call('ZCOUNT', key, '-inf', '(' .. PINNED) - keep
    if excess > 0 then ids = redis.call('ZRANGE', key, 0, math.min(excess, 2 * SLICE) - 1) end
  end
  local aged_ago = now - (tonumber(meta[6]) or 0)
  -- Also where that is damaged or still to come, by a clock that was set back.
  if age >= 0 and #ids == 0 and not (aged_ago >= 0 and aged_ago < 1000) then
    aged = true
    ids = redis.call('ZRANGEBYSCORE', key, '-inf', '(' .. (now - age), 'LIMIT', 0, 2 * SLICE)
  end
  if #ids == 0 then return false end
  forget(ids, state, 'retention')
  redis.call('ZREM', key, unpack(ids))
  if redis.call('HGET', meta_key, 'own_ages') then
    for index, id in ipairs(ids) do ids[index] = 'keep ' .. id end
    redis.call('ZREM', timers_key, unpack(ids))
  end
  return #ids == 2 * SLICE
end
