#!lua
-- Puts finished jobs back in line. A job in another state is left as it is.
-- KEYS: meta calls timers jobs runs results wait prioritized delayed completed failed events marker
-- ARGV: writer, number, state they must be in ('completed' or 'failed'), reset attempts ('1'), count, then ids
-- Reply: OK, per job a letter: r retried, s in another state, m missing | STALE | LAYOUT
-- Events: waiting
local meta_key, calls_key, timers_key, jobs_key, runs_key, results_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local wait_key, prioritized_key, delayed_key = KEYS[7], KEYS[8], KEYS[9]
local completed_key, failed_key, events_key, marker_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
-- include: clock
-- include: call
-- include: emit
-- include: runs
-- include: line
-- include: wake
if replayed then return {'OK', replayed} end
local ids, verdicts, events, texts, moved = {}, {}, {}, {}, {}
for index = 1, tonumber(ARGV[5]) do ids[index] = ARGV[5 + index] end
local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
local seen = {}
for index, id in ipairs(ids) do
  local run = runs[index] and read_run(runs[index])
  if not records[index] then
    verdicts[index] = 'm'
  elseif not run or run.state ~= ARGV[3] or seen[id] then
    verdicts[index] = 's'
  else
    local name = string.match(records[index], '^1\t%d+\t%d*\t%d*\t%a*\t([%w._:/ -]+)\t') or '__other__'
    verdicts[index], seen[id] = 'r', true
    run.state = run.place ~= '-' and 'prioritized' or 'waiting'
    run.finished, run.ready = 0, now
    if ARGV[4] == '1' then run.fails, run.stalls = 0, 0 end
    events[#events + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '","state":"' .. run.state .. '","previous":"'
      .. ARGV[3] .. '"}'
    texts[#texts + 1] = id
    texts[#texts + 1] = write_run(run)
    moved[#moved + 1] = {id, run.place}
  end
end
emit('waiting', events)
if #texts > 0 then redis.call('HSET', runs_key, unpack(texts)) end
for _, move in ipairs(moved) do
  redis.call('ZREM', ARGV[3] == 'failed' and failed_key or completed_key, move[1])
  redis.call('HDEL', results_key, move[1])
  redis.call('ZREM', timers_key, 'keep ' .. move[1])
  line_up(move[1], move[2], 'tail')
end
wake(math.max(1, #moved))
local reply = table.concat(verdicts)
close_call(reply)
return {'OK', reply}
