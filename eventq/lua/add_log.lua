#!lua
-- Adds a line to a job's log. By its processor it carries the token of the run; by anybody else it carries none. The oldest lines
-- make room: stored are how many there ever were, and those that are kept, a line each.
-- KEYS: meta calls timers jobs runs logs
-- ARGV: writer, number, id, token ('' by anybody), line (JSON), lines kept at most, bytes kept at most
-- Reply: OK, u added, s not this run's any more, m missing | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key = KEYS[1], KEYS[2], KEYS[3]
local jobs_key, runs_key, logs_key = KEYS[4], KEYS[5], KEYS[6]
-- include: clock
-- include: call
-- include: held
if replayed then return {'OK', replayed} end
local id, verdict = ARGV[3], 'u'
local record = redis.call('HEXISTS', jobs_key, id) == 1
if not record then verdict = 'm' elseif not is_held(id, ARGV[4], '') then verdict = 's' end
if verdict == 'u' then
  local ever, lines = string.match(redis.call('HGET', logs_key, id) or '0', '^(%d+)(.*)$')
  if not ever or #ever > 15 then ever, lines = '0', '' end -- damaged
  lines = lines .. '\n' .. ARGV[5]
  local _, kept = string.gsub(lines, '\n', '')
  while kept > tonumber(ARGV[6]) or #lines > tonumber(ARGV[7]) and kept > 1 do
    lines, kept = string.sub(lines, (string.find(lines, '\n', 2, true))), kept - 1
  end
  redis.call('HSET', logs_key, id, string.format('%.0f', ever + 1) .. lines)
end
close_call(verdict)
return {'OK', verdict}
