#!lua flags=no-writes
-- Reads schedules in the order of their next slots, those that are paused or have ended last; at most as many as fit into the
-- bytes, one at least. KEYS: meta schedules slots
-- ARGV: 'id' and the id | 'due', limit, bytes and start | 'page', limit, bytes and start
-- Reply: OK, now, whether there are more (0 or 1), then per schedule: id, record | LAYOUT
-- Events: none
local meta_key, schedules_key, slots_key = KEYS[1], KEYS[2], KEYS[3]
-- include: clock
-- include: layout
local what, reply, bytes, ids = ARGV[1], {'OK', now, 0}, 0, {ARGV[2]}
if what == 'due' then
  ids = redis.call('ZRANGEBYSCORE', slots_key, '-inf', now, 'LIMIT', ARGV[4], ARGV[2])
elseif what == 'page' then
  ids = redis.call('ZRANGE', slots_key, ARGV[4], ARGV[4] + ARGV[2] - 1)
end
if what ~= 'id' and #ids == tonumber(ARGV[2]) then reply[3] = 1 end
for _, id in ipairs(ids) do
  local record = redis.call('HGET', schedules_key, id)
  if record then
    bytes = bytes + #record
    if what ~= 'id' and #reply > 3 and bytes > tonumber(ARGV[3]) then
      reply[3] = 1
      break
    end
    reply[#reply + 1], reply[#reply + 2] = id, record
  end
end
return reply
