-- Takes jobs from the head of the line: `wait`, then `prioritized`. Nothing is popped before everything else is written,
-- so a script that breaks half-way loses no job. Needs: now, emit, count, read_run, write_run, holes in meta and the columns.
local CLAIM_BYTES, EXAMINED = 1048576, 500
local HEADER_OF = '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t([^\t\n]*)'

-- Is this entry of the line really next in line (`state`), or a hole left by a job that was removed or moved? A record that
-- Lua cannot read is claimed all the same: the worker fails it alone, with a reason.
local function stands_in_line(run, added, due, priority, state)
  if run then return string.sub(run, 1, #state + 1) == state .. ' ' end
  return not added or due == '' and (priority ~= '') == (state == 'prioritized')
end

-- Looks at entries in order; `take` gets each that is a job in line. Returns how many were looked at.
local function examine(entries, state, batch, take)
  if #entries == 0 then return 0 end
  local match = string.match
  local records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
  for index = 1, #entries do
    local id, record, run = entries[index], records[index], runs[index]
    local added, due, priority, flags, name
    if record then added, due, priority, flags, name = match(record, HEADER_OF) end
    if not record or batch.seen[id] or not stands_in_line(run, added, due, priority, state) then
      batch.holes = batch.holes + 1
    else
      local data = flags and flags ~= '' and string.find(flags, 'd', 1, true) and redis.call('HGET', data_key, id) or ''
      batch.bytes = batch.bytes + #record + #data
      if batch.bytes > CLAIM_BYTES and batch.size > 0 then
        batch.full = true
        return index - 1
      end
      if batch.may_repeat then batch.seen[id] = true end
      take(id, record, data, run, added and (due ~= '' and due or added) or now_text, name or '__other__')
    end
  end
  return #entries
end

local function claim(reply)
  -- Only a line with holes can name a job twice: removed, then added again under its own id.
  local batch = {ids = {}, size = 0, seen = {}, holes = 0, bytes = 0, full = false, may_repeat = meta[5] and meta[5] ~= '0'}
  local texts, leases, events, token = {}, {'+inf', NO_LEASE}, {}, 'active ' .. writer .. '.' .. number .. '.'
  local deadline, places, waits, by = string.format('%.0f', now + lease), {}, {}, '","attempt":1,"worker":"' .. worker
  local middle, tail = ' ' .. now_text .. ' 1 0 0 0 ', ' ' .. worker
  local starts, at, ids = {}, #reply, batch.ids
  local function take(id, record, data, run, ready, name)
    local index = batch.size
    local text, again, event = nil, '', nil
    if run then
      run = read_run(run)
      run.state, run.token, run.started, run.starts, run.worker = 'active', writer .. '.' .. number .. '.' .. index,
        now_text, run.starts + 1, worker
      text, ready = write_run(run), run.ready
      again = text .. '\n' .. data
      event = '","attempt":' .. (run.fails + 1) .. ',"worker":"' .. worker
    else
      text = token .. index .. ' 0 ' .. ready .. middle .. (places[id] or '-') .. tail
      if data ~= '' then again = '\n' .. data end
    end
    local waited = waits[ready]
    if not waited then
      waited = '","waited_ms":' .. math.max(0, now - ready) .. '}'
      waits[ready] = waited
    end
    local double = index * 2
    batch.size, ids[index + 1] = index + 1, id
    texts[double + 1], texts[double + 2] = id, text
    leases[double + 3], leases[double + 4] = deadline, id
    events[index + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. (event or by) .. waited
    reply[at + 1], reply[at + 2], reply[at + 3] = id, record, again
    at = at + 3
    starts[name] = (starts[name] or 0) + 1
  end
  local taken, from_priority = 0, 0
  repeat
    local want = math.min(wanted - batch.size, EXAMINED - taken)
    local entries = redis.call('LRANGE', wait_key, taken, taken + want - 1)
    taken = taken + examine(entries, 'waiting', batch, take)
  until batch.full or batch.size == wanted or #entries < want or taken >= EXAMINED
  local holes = batch.holes
  if not batch.full and batch.size < wanted and taken < EXAMINED then
    local scored = redis.call('ZRANGE', prioritized_key, 0, wanted - batch.size - 1, 'WITHSCORES')
    local entries = {}
    for index = 1, #scored, 2 do
      entries[#entries + 1] = scored[index]
      places[scored[index]] = string.format('%.0f', tonumber(scored[index + 1]))
    end
    from_priority = examine(entries, 'prioritized', batch, take)
  end
  for name, n in pairs(starts) do count('starts', name, n) end
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
