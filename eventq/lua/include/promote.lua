-- Moves jobs that are due from `delayed` into line and tells it; `due_in` becomes the ms until the next one.
-- Needs: now, due_in, emit, line_up, new_place, read_run, write_run, delayed_key, jobs_key, runs_key.
local HEADER = '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t([%w._:/ -]+)\t'
-- `since`: from when on they are ready, nil for when they were due. Returns how many.
local function into_line(ids, since)
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  local events, moves, texts = {}, {}, {}
  for index, id in ipairs(ids) do
    local added, due, priority, flags, name = string.match(records[index] or '', HEADER)
    if added and (#added > 14 or #due > 14) then added = nil end
    if not added then due, priority, flags, name = now_text, '', '', '__other__' end
    if due == '' then due = now_text end -- it comes from a run, which may be damaged
    local run = runs[index] and read_run(runs[index]) or {state = '', token = '-', finished = 0, ready = due, started = 0,
      starts = 0, fails = 0, stalls = 0, releases = 0, place = '-', worker = '-'}
    if run.place == '-' and priority ~= '' then run.place = new_place(priority) end
    run.state, run.ready = run.place ~= '-' and 'prioritized' or 'waiting', since or run.ready
    events[#events + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '","state":"' .. run.state
      .. '","previous":"delayed","due_ms":' .. run.ready .. '}'
    moves[#moves + 1] = {id, run.place, string.find(flags, 'l', 1, true) and 'head' or 'tail'}
    texts[#texts + 1] = id
    texts[#texts + 1] = write_run(run)
  end
  emit('waiting', events)
  redis.call('HSET', runs_key, unpack(texts))
  for _, move in ipairs(moves) do line_up(move[1], move[2], move[3]) end
  redis.call('ZREM', delayed_key, unpack(ids))
  local score = redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2]
  due_in = score and math.max(0, math.floor(tonumber(score)) - now)
  return #moves
end

local function promote(limit)
  return into_line(redis.call('ZRANGEBYSCORE', delayed_key, '-inf', '(' .. (now + 1), 'LIMIT', 0, limit))
end
