-- Where jobs stand in line. Needs: meta_key, wait_key, prioritized_key, delayed_key.
-- A new place among its priority: priority * 2^32 + a counter, FIFO among equals (as text: 16 digits). The counter leaves room
-- before the first one, for those that are put there.
local function new_place(priority)
  local counter = (add_to(meta_key, 'counter', 1) + 1048576) % 4294967296
  return string.format('%.0f', priority * 4294967296 + counter)
end

-- Back to waiting: at its own place when it has one, else at the head or the tail of `wait`.
local function line_up(id, place, side)
  if place ~= '-' then
    redis.call('ZADD', prioritized_key, place, id)
  else
    redis.call(side == 'head' and 'LPUSH' or 'RPUSH', wait_key, id)
  end
end

-- Into `delayed`. The score is the due ms plus a fraction that keeps jobs of one ms in the order they came
-- (1,023 of them; after that by id, which is time-ordered when it is ours).
local function delay_until(id, due)
  local last = redis.call('ZREVRANGEBYSCORE', delayed_key, '(' .. (due + 1), due, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local fraction = last and math.min(tonumber(last) - due + 1 / 1024, 1023 / 1024) or 0
  redis.call('ZADD', delayed_key, string.format('%.17g', due + fraction), id)
end
