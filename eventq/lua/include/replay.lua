-- Answers with the reply of a claim that was made already: the same jobs; one that has been taken away since has an empty
-- record. Needs: replayed, now, writer, number, jobs_key, runs_key, data_key.
local first, stale, list = string.match(replayed, '^(%d+)|([^|]*)|(.*)$')
local tokens = writer .. '.' .. number .. '.'
local reply, index = {'OK', now, tonumber(first), -1, stale, tokens}, 0
for id in string.gmatch(list, '%S+') do
  local record, run, at = redis.call('HGET', jobs_key, id), redis.call('HGET', runs_key, id), #reply
  local prefix = 'active ' .. tokens .. index .. ' '
  local ours = record and run and string.sub(run, 1, #prefix) == prefix
  reply[at + 1], reply[at + 2] = id, ours and record or ''
  reply[at + 3] = ours and run .. '\n' .. (redis.call('HGET', data_key, id) or '') or ''
  index = index + 1
end
do return reply end
