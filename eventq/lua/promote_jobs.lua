#!lua
-- Puts delayed jobs into line now. A job in another state is left as it is.
-- KEYS: meta calls timers jobs runs wait prioritized delayed events marker
-- ARGV: writer, number, count, then ids
-- Reply: OK, per job a letter: p promoted, s in another state, m missing | STALE | LAYOUT
-- Events: waiting
local meta_key, calls_key, timers_key, jobs_key, runs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local wait_key, prioritized_key, delayed_key, events_key, marker_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
-- include: clock
-- include: call
-- include: emit
-- include: runs
-- include: line
-- include: wake
-- include: due
-- include: promote
if replayed then return {'OK', replayed} end
local ids, verdicts, chosen, seen = {}, {}, {}, {}
for index = 1, tonumber(ARGV[3]) do ids[index] = ARGV[3 + index] end
local records = redis.call('HMGET', jobs_key, unpack(ids))
for index, id in ipairs(ids) do
  if not records[index] then
    verdicts[index] = 'm'
  elseif seen[id] or not redis.call('ZSCORE', delayed_key, id) then
    verdicts[index] = 's'
  else
    verdicts[index], seen[id] = 'p', true
    chosen[#chosen + 1] = id
  end
end
if #chosen > 0 then into_line(chosen, now_text) end
wake(math.max(1, #chosen))
local reply = table.concat(verdicts)
close_call(reply)
return {'OK', reply}
