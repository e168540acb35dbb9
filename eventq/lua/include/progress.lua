-- Records progress of running jobs: (id, token, fragment, value) from ARGV[14]. A stale token is left out.
-- Needs: progressed, emit, runs_key, progress_key.
local progressing, updates, values = {}, {}, {}
for index = 1, progressed do progressing[index] = ARGV[10 + index * 4] end
local running = redis.call('HMGET', runs_key, unpack(progressing))
for index, id in ipairs(progressing) do
  local at = 10 + index * 4
  local prefix = 'active ' .. ARGV[at + 1] .. ' '
  if running[index] and string.sub(running[index], 1, #prefix) == prefix then
    updates[#updates + 1] = '{"job_id":"' .. id .. '",' .. ARGV[at + 2] .. ',"progress":' .. ARGV[at + 3] .. '}'
    values[#values + 1] = id
    values[#values + 1] = ARGV[at + 3]
  end
end
emit('progress', updates)
if #values > 0 then redis.call('HSET', progress_key, unpack(values)) end
