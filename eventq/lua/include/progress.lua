-- Records progress of running jobs: (id, token, fragment, value) from ARGV[first]. A stale token is left out.
-- Needs: emit, runs_key, progress_key.
local function record_progress(first, amount)
  local ids = {}
  for index = 0, amount - 1 do ids[#ids + 1] = ARGV[first + index * 4] end
  local runs, events, values = redis.call('HMGET', runs_key, unpack(ids)), {}, {}
  for index, id in ipairs(ids) do
    local at = first + (index - 1) * 4
    local prefix = 'active ' .. ARGV[at + 1] .. ' '
    if runs[index] and string.sub(runs[index], 1, #prefix) == prefix then
      events[#events + 1] = '{"job_id":"' .. id .. '",' .. ARGV[at + 2] .. ',"progress":' .. ARGV[at + 3] .. '}'
      values[#values + 1] = id
      values[#values + 1] = ARGV[at + 3]
    end
  end
  emit('progress', events)
  if #values > 0 then redis.call('HSET', progress_key, unpack(values)) end
end
