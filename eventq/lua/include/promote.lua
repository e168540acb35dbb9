-- Moves jobs that are due from `delayed` into line and tells it. Needs: now, emit, line_up, new_place, read_run,
-- write_run, delayed_key, jobs_key, runs_key. Returns how many moved.
local HEADER = '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t([^\t\n]*)'
local function promote(limit)
  local ids = redis.call('ZRANGEBYSCORE', delayed_key, '-inf', '(' .. (now + 1), 'LIMIT', 0, limit)
  if #ids == 0 then return 0 end
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  local events, moves, texts = {}, {}, {}
  for index, id in ipairs(ids) do
    local added, due, priority, flags, name = string.match(records[index] or '', HEADER)
    if added then
      local run = runs[index] and read_run(runs[index]) or {token = '-', finished = 0, ready = due, started = 0,
        starts = 0, fails = 0, stalls = 0, releases = 0, place = '-', worker = '-'}
      if run.place == '-' and priority ~= '' then run.place = new_place(priority) end
      run.state = run.place ~= '-' and 'prioritized' or 'waiting'
      events[#events + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '","state":"' .. run.state
        .. '","previous":"delayed","due_ms":' .. run.ready .. '}'
      moves[#moves + 1] = {id, run.place, string.find(flags, 'l', 1, true) and 'head' or 'tail'}
      texts[#texts + 1] = id
      texts[#texts + 1] = write_run(run)
    end
  end
  emit('waiting', events)
  if #texts > 0 then redis.call('HSET', runs_key, unpack(texts)) end
  for _, move in ipairs(moves) do line_up(move[1], move[2], move[3]) end
  redis.call('ZREM', delayed_key, unpack(ids))
  return #moves
end
