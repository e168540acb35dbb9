#!lua
-- Replaces a job's data. By its processor it carries the token of the run; by anybody else it carries none.
-- KEYS: meta calls timers jobs data runs events
-- ARGV: writer, number, id, token ('' by anybody), data, data kept apart ('' none: then the other one is it)
-- Reply: OK, u updated, s not this run's any more, m missing | STALE | LAYOUT
-- Events: updated
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, events_key = KEYS[6], KEYS[7]
-- include: clock
-- include: call
-- include: emit
-- include: held
if replayed then return {'OK', replayed} end
local id, apart, verdict = ARGV[3], ARGV[6], 'u'
local record = redis.call('HGET', jobs_key, id)
local head, flags, rest, name, spec
if record then head, flags, rest, spec = string.match(record, '^(1\t%d+\t%d*\t%d*\t)(%a*)(\t[%w._:/ -]+\t[^\n]*)\n([^\n]*)\n') end
local state = is_held(id, ARGV[4], record)
if not head then verdict = 'm' elseif not state then verdict = 's' end
if verdict == 'u' then
  name = string.match(rest, '^\t([^\t]*)')
  emit('updated', {'{"job_id":"' .. id .. '","name":"' .. name .. '","what":"data","state":"' .. state .. '","previous":"'
    .. state .. '"}'})
  flags = string.gsub(flags, 'd', '') .. (apart ~= '' and 'd' or '')
  redis.call('HSET', jobs_key, id, head .. flags .. rest .. '\n' .. spec .. '\n' .. ARGV[5])
  if apart ~= '' then redis.call('HSET', data_key, id, apart) else redis.call('HDEL', data_key, id) end
end
close_call(verdict)
return {'OK', verdict}
