-- A place before all others of its priority. Needs: prioritized_key.
local function first_place(priority)
  local least = priority * 4294967296
  local first = redis.call('ZRANGEBYSCORE', prioritized_key, least, '(' .. string.format('%.0f', least + 4294967296), 'WITHSCORES',
    'LIMIT', 0, 1)[2]
  return first and string.format('%.0f', math.max(least, tonumber(first) - 1)) or new_place(priority)
end
