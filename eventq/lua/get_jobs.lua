#!lua flags=no-writes
-- Reads jobs. KEYS: meta jobs data runs results progress
-- ARGV: ids (at most 500)
-- Reply: OK, now, paused (0 or 1), then per job: id, record, run, data kept apart, result or error, progress (nil where absent)
--        | LAYOUT
-- Events: none
local meta_key, jobs_key, data_key, runs_key, results_key, progress_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
-- include: clock
-- include: layout
local reply = {'OK', now, redis.call('HGET', meta_key, 'paused') == '1' and 1 or 0}
if #ARGV == 0 then return reply end
local columns = {}
for index, key in ipairs({jobs_key, runs_key, data_key, results_key, progress_key}) do
  columns[index] = redis.call('HMGET', key, unpack(ARGV))
end
for index, id in ipairs(ARGV) do
  reply[#reply + 1] = id
  for _, column in ipairs(columns) do reply[#reply + 1] = column[index] end
end
return reply
