#!lua flags=allow-oom
-- Gives running jobs back to the head of the line, uncounted as attempts, in the order they are named.
-- KEYS: meta calls timers runs wait prioritized delayed leases totals events marker
-- ARGV: writer, number, count, then per job: id, token, fragment
-- Reply: OK, how many were still ours | STALE | LAYOUT
-- Events: released
local meta_key, calls_key, timers_key, runs_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local wait_key, prioritized_key, delayed_key, leases_key = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local totals_key, events_key, marker_key = KEYS[9], KEYS[10], KEYS[11]
-- include: clock
-- include: call
-- include: emit
-- include: count
-- include: runs
-- include: line
-- include: wake
if replayed then return {'OK', tonumber(replayed)} end
local ids, events, texts, released, seen = {}, {}, {}, {}, {}
for index = 0, tonumber(ARGV[3]) - 1 do ids[index + 1] = ARGV[4 + index * 3] end
local current = redis.call('HMGET', runs_key, unpack(ids))
for index, id in ipairs(ids) do
  local at = 4 + (index - 1) * 3
  local run = current[index] and read_run(current[index])
  if run and run.state == 'active' and run.token == ARGV[at + 1] and not seen[id] then
    seen[id] = true
    run.state, run.token, run.releases = run.place ~= '-' and 'prioritized' or 'waiting', '-', run.releases + 1
    run.worker, run.ready = '-', now_text
    released[#released + 1] = {id, run.place}
    texts[#texts + 1] = id
    texts[#texts + 1] = write_run(run)
    events[#events + 1] = '{"job_id":"' .. id .. '",' .. ARGV[at + 2] .. ',"state":"' .. run.state
      .. '","previous":"active","ran_ms":' .. math.max(0, now - run.started) .. '}'
    count('released', string.match(ARGV[at + 2], '^"name":"([^"]*)"'), 1)
  end
end
emit('released', events)
if #texts > 0 then redis.call('HSET', runs_key, unpack(texts)) end
for index = #released, 1, -1 do
  redis.call('ZREM', leases_key, released[index][1])
  line_up(released[index][1], released[index][2], 'head')
end
-- include: totals
wake(math.max(1, #released))
close_call(tostring(#released))
return {'OK', #released}
