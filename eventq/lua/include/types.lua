-- Refuses to run where a key holds another type than eventq puts there, and says which. Needs: KEYS.
local TYPES = {wait = 'list', events = 'stream', prioritized = 'zset', delayed = 'zset', leases = 'zset', waiting_children = 'zset',
  completed = 'zset', failed = 'zset', timers = 'zset', marker = 'zset', slots = 'zset'}
for _, key in ipairs(KEYS) do
  local found, column = redis.call('TYPE', key).ok, string.match(key, '[^:]*$')
  if found ~= 'none' and found ~= (TYPES[column] or 'hash') then return {'DAMAGED', key, found} end
end
