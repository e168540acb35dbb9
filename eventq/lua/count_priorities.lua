#!lua flags=no-writes
-- Counts the jobs in line by priority; 0 are those without one.
-- KEYS: meta wait prioritized
-- ARGV: priorities (at most 500)
-- Reply: OK, per priority how many | LAYOUT
-- Events: none
local meta_key = KEYS[1]
-- include: layout
local reply = {'OK'}
for index, priority in ipairs(ARGV) do
  if priority == '0' then
    reply[index + 1] = redis.call('LLEN', KEYS[2]) - (tonumber(redis.call('HGET', meta_key, 'holes')) or 0)
  else
    local least = priority * 4294967296
    reply[index + 1] = redis.call('ZCOUNT', KEYS[3], string.format('%.0f', least), '(' .. string.format('%.0f', least + 4294967296))
  end
end
return reply
