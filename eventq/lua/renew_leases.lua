#!lua flags=allow-oom
-- Renews the leases of running jobs. A lease that was taken away stays away: nothing here brings it back.
-- KEYS: meta calls timers runs leases
-- ARGV: writer, number, lease ms, count, then per job: id, token
-- Reply: OK, indexes (from 0) of lost ones, as text | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, runs_key, leases_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', replayed} end
local lease, amount, ids, renewed, lost = tonumber(ARGV[3]), tonumber(ARGV[4]), {}, {}, {}
for index = 0, amount - 1 do ids[index + 1] = ARGV[5 + index * 2] end
local runs = redis.call('HMGET', runs_key, unpack(ids))
for index, id in ipairs(ids) do
  local prefix = 'active ' .. ARGV[4 + index * 2] .. ' '
  if runs[index] and string.sub(runs[index], 1, #prefix) == prefix then
    renewed[#renewed + 1] = now + lease
    renewed[#renewed + 1] = id
  else
    lost[#lost + 1] = index - 1
  end
end
if #renewed > 0 then redis.call('ZADD', leases_key, 'XX', unpack(renewed)) end
local reply = table.concat(lost, ' ')
close_call(reply)
return {'OK', reply}
