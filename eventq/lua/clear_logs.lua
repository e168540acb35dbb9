#!lua flags=allow-oom
-- Removes a job's log lines but for the last so many.
-- KEYS: meta calls timers jobs logs
-- ARGV: writer, number, id, lines kept
-- Reply: OK, u done, m missing | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, jobs_key, logs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', replayed} end
local id, keep = ARGV[3], tonumber(ARGV[4])
local verdict = redis.call('HEXISTS', jobs_key, id) == 1 and 'u' or 'm'
local lines = redis.call('HGET', logs_key, id)
if lines and keep == 0 then
  redis.call('HDEL', logs_key, id)
elseif lines then
  local starts = {}
  for at in string.gmatch(lines, '()\n') do starts[#starts + 1] = at end
  if #starts > keep then
    redis.call('HSET', logs_key, id, (string.match(lines, '^%d+') or '0') .. string.sub(lines, starts[#starts - keep + 1]))
  end
end
close_call(verdict)
return {'OK', verdict}
