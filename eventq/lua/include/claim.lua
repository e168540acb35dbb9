-- Takes jobs from the head of the line: `wait`, then `prioritized`. Nothing is popped before everything else is written,
-- so a script that breaks half-way loses no job. Needs: now, emit, count, read_run, write_run, holes in meta and the columns.
local CLAIM_BYTES, EXAMINED = 1048576, 500
local HEADER_OF = '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t([^\t\n]*)'

-- A record Lua cannot read is claimed all the same: the worker fails it alone, with a reason.
local function header_of(record, state)
  local added, due, priority, flags, name = string.match(record, HEADER_OF)
  if added then return added, due, priority, flags, name end
  return now, '', state == 'prioritized' and '1' or '', '', '__other__'
end

-- Is this entry of the line really next in line (`state`), or a hole left by a job that was removed or moved?
local function stands_in_line(run, due, priority, state)
  if run then return string.sub(run, 1, #state + 1) == state .. ' ' end
  return due == '' and (priority ~= '') == (state == 'prioritized')
end

local function claim_from(entries, state, batch)
  if #entries == 0 then return 0 end
  local records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
  for index, id in ipairs(entries) do
    local record = records[index]
    if not record or batch.seen[id] then
      batch.holes = batch.holes + 1
    else
      local added, due, priority, flags, name = header_of(record, state)
      if not stands_in_line(runs[index], due, priority, state) then
        batch.holes = batch.holes + 1
      else
        local data = string.find(flags, 'd', 1, true) and redis.call('HGET', data_key, id) or ''
        batch.bytes = batch.bytes + #record + #data
        if batch.bytes > CLAIM_BYTES and #batch.ids > 0 then
          batch.full = true
          return index - 1
        end
        batch.seen[id] = true
        batch.take(id, record, data, runs[index], due ~= '' and due or added, name)
      end
    end
  end
  return #entries
end

local function claim(reply)
  local batch = {ids = {}, seen = {}, holes = 0, bytes = 0, full = false}
  local texts, leases, events, token = {}, {}, {}, writer .. '.' .. number .. '.'
  function batch.take(id, record, data, run, ready, name)
    local index, attempt, text, again = #batch.ids, 1, nil, ''
    if run then
      run = read_run(run)
      run.state, run.token, run.started, run.starts, run.worker = 'active', token .. index, now, run.starts + 1, worker
      ready, attempt, text = run.ready, run.fails + 1, write_run(run)
      again = text
    else
      text = 'active ' .. token .. index .. ' 0 ' .. ready .. ' ' .. now .. ' 1 0 0 0 ' .. (batch.places[id] or '-')
        .. ' ' .. worker
    end
    batch.ids[index + 1] = id
    texts[#texts + 1], texts[#texts + 2] = id, text
    leases[#leases + 1], leases[#leases + 2] = now + lease, id
    events[#events + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '","attempt":' .. attempt .. ',"worker":"'
      .. worker .. '","waited_ms":' .. math.max(0, now - ready) .. '}'
    local at = #reply
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4], reply[at + 5] = id, index, record, again, data
    count('starts', name, 1)
  end
  batch.places = {}
  local taken, from_priority = 0, 0
  repeat
    local want = math.min(wanted - #batch.ids, EXAMINED - taken)
    local entries = redis.call('LRANGE', wait_key, taken, taken + want - 1)
    taken = taken + claim_from(entries, 'waiting', batch)
  until batch.full or #batch.ids == wanted or #entries < want or taken >= EXAMINED
  local holes = batch.holes
  if not batch.full and #batch.ids < wanted and taken < EXAMINED then
    local scored = redis.call('ZRANGE', prioritized_key, 0, wanted - #batch.ids - 1, 'WITHSCORES')
    local entries = {}
    for index = 1, #scored, 2 do
      entries[#entries + 1] = scored[index]
      batch.places[scored[index]] = string.format('%.0f', tonumber(scored[index + 1]))
    end
    from_priority = claim_from(entries, 'prioritized', batch)
  end
  reply[3] = seq + 1
  emit('active', events)
  if #texts > 0 then
    redis.call('HSET', runs_key, unpack(texts))
    redis.call('ZADD', leases_key, unpack(leases))
  end
  if taken > 0 then redis.call('LPOP', wait_key, taken) end
  if from_priority > 0 then redis.call('ZPOPMIN', prioritized_key, from_priority) end
  if holes > 0 then redis.call('HINCRBY', meta_key, 'holes', -math.min(holes, tonumber(meta[5]) or 0)) end
  return batch.ids
end

-- The reply of a claim that was made already: the same jobs, less those that have been taken away since.
local function replay_claim(text)
  local first, stale, list = string.match(text, '^(%d+)|([^|]*)|(.*)$')
  local tokens = writer .. '.' .. number .. '.'
  local reply, index = {'OK', now, tonumber(first), -1, stale, tokens}, 0
  for id in string.gmatch(list, '%S+') do
    local record, run = redis.call('HGET', jobs_key, id), redis.call('HGET', runs_key, id)
    local prefix = 'active ' .. tokens .. index .. ' '
    if record and run and string.sub(run, 1, #prefix) == prefix then
      local at = #reply
      reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = id, index, record, run
      reply[at + 5] = redis.call('HGET', data_key, id) or ''
    end
    index = index + 1
  end
  return reply
end
