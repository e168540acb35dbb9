-- Takes jobs from the head of the line, `wait` and then `prioritized`, into `ids` and `reply`. Nothing is popped before
-- everything else is written, so a script that breaks half-way loses no job. An entry whose job is not in line is a hole,
-- left by one that was removed or moved, and is dropped. A record that Lua cannot read is claimed all the same: the worker
-- fails it alone, with a reason. A worker runs one job on its last chance (one more stall ends it) at a time, and the others
-- are passed over, so that one which kills its worker takes no innocent one along into failure.
-- Needs: now, wanted, lease, worker, emit, totals, meta, reply, left, ids, the columns. Inline and with counters, as settle.
local CLAIM_BYTES, EXAMINED, KEPT_AT_HEAD = 1048576, 500, 100
-- Nobody else takes a job whose run cannot be read.
local RUN = '^[%l_]+ %S+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %S+ %S'
local STALLS = '^%S+ %S+ %d+ %d+ %d+ %d+ %d+ (%d+)'
local match, size, bytes, holes, full, at = string.match, 0, 0, 0, false, #reply
local max_stalls, may_risk, passed_over = tonumber(ARGV[12]), ARGV[13] == '1', {}
-- Only a line with holes can name a job twice: removed, then added again under its own id.
local may_repeat, seen, starts, places, waits = meta[5] and meta[5] ~= '0', {}, {}, {}, {}
local texts, deadlines, events = {}, {'+inf', NO_LEASE}, {}
local deadline, tokens = string.format('%.0f', now + lease), 'active ' .. writer .. '.' .. number .. '.'
local middle, tail, by = ' ' .. now_text .. ' 1 0 0 0 ', ' ' .. worker, '","attempt":1,"worker":"' .. worker
local state, taken, from_priority, last = 'waiting', 0, 0, false
while not full and size < wanted and not last do
  local entries, want = {}, wanted - size + (#passed_over > 0 and 50 or 0)
  if state == 'waiting' then
    want = math.min(want, EXAMINED - taken)
    if want > 0 then entries = redis.call('LRANGE', wait_key, taken, taken + want - 1) end
    -- So many holes say nothing of what is behind them; so many jobs passed over must not keep the rest waiting.
    last = want == 0 and #passed_over == 0
    if #entries == 0 then state = 'prioritized' end
  end
  if state == 'prioritized' and not last then
    want = math.min(wanted - size + (#passed_over > 0 and 50 or 0), EXAMINED - from_priority)
    local scored = want > 0 and redis.call('ZRANGE', prioritized_key, from_priority, from_priority + want - 1, 'WITHSCORES') or {}
    last = #scored < want * 2 or want <= 0
    for index = 1, #scored, 2 do
      entries[#entries + 1] = scored[index]
      places[scored[index]] = string.format('%.0f', tonumber(scored[index + 1]))
    end
  end
  local records, runs, looked = {}, {}, #entries
  if looked > 0 then
    records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
  end
  for index = 1, looked do
    if size == wanted then
      looked = index - 1
      break
    end
    local id, record, run = entries[index], records[index], runs[index]
    local added, due, priority, flags, name, in_line
    if record and not seen[id] then
      added, due, priority, flags, name = match(record, '^1\t(%d+)\t(%d*)\t(%d*)\t(%a*)\t([%w._:/ -]+)\t')
      if added and (#added > 14 or #due > 14) then added, flags, name = nil, nil, nil end
      if run then in_line = string.sub(run, 1, #state + 1) == state .. ' ' or not match(run, RUN)
      else in_line = not added or due == '' and (priority ~= '') == (state == 'prioritized') end
    end
    local is_last_chance = false
    if run and in_line and max_stalls > 0 then is_last_chance = (tonumber(match(run, STALLS)) or 0) >= max_stalls end
    if not in_line then
      if state == 'waiting' then holes = holes + 1 end
    elseif is_last_chance and not may_risk then
      passed_over[#passed_over + 1] = id
    else
      if is_last_chance then may_risk = false end
      local data = flags and flags ~= '' and string.find(flags, 'd', 1, true) and redis.call('HGET', data_key, id) or ''
      bytes = bytes + #record + #data
      if bytes > CLAIM_BYTES and size > 0 then
        full, looked = true, index - 1
        break
      end
      local text, again, attempt, close = nil, '', by, '}'
      local ready = added and (due ~= '' and due or added) or now_text
      name = name or '__other__'
      if run then
        -- include: claim_again
      else
        text = tokens .. size .. ' 0 ' .. ready .. middle .. (places[id] or '-') .. tail
        if data ~= '' then again = '\n' .. data end
      end
      local waited = waits[ready]
      if not waited then
        waited = '","waited_ms":' .. math.max(0, now - ready)
        -- Of a clock that was set back.
        if now - ready < 0 then waited = waited .. ',"added_ms":' .. ready end
        waits[ready] = waited
      end
      -- Of the others it is when they became ready, which the event says anyway.
      if added and (run or due ~= '') then close = ',"added_ms":' .. added .. '}' end
      size = size + 1
      ids[size], texts[size * 2 - 1], texts[size * 2] = id, id, text
      deadlines[size * 2 + 1], deadlines[size * 2 + 2] = deadline, id
      events[size] = '{"job_id":"' .. id .. '","name":"' .. name .. attempt .. waited .. close
      reply[at + 1], reply[at + 2], reply[at + 3] = id, record, again
      at = at + 3
      starts[name] = (starts[name] or 0) + 1
      if may_repeat then seen[id] = true end
    end
  end
  if state == 'waiting' then taken = taken + looked else from_priority = from_priority + looked end
end
reply[3] = seq + 1
if size > 0 then
  totals.starts = starts
  emit('active', events)
  redis.call('HSET', runs_key, unpack(texts))
  redis.call('ZADD', leases_key, unpack(deadlines))
end
if taken > 0 then redis.call('LPOP', wait_key, taken) end
if from_priority > 0 then redis.call('ZPOPMIN', prioritized_key, from_priority) end
-- A line of nothing else is no news to this worker: its wake-up would come back to it at once, again and again.
left = #passed_over > 0 and size == 0
local head, tail_end = {}, {}
for _, id in ipairs(passed_over) do
  if places[id] then redis.call('ZADD', prioritized_key, places[id], id)
  elseif #head < KEPT_AT_HEAD then table.insert(head, 1, id)
  else tail_end[#tail_end + 1] = id end
end
if #head > 0 then redis.call('LPUSH', wait_key, unpack(head)) end
-- More of them would hide what is behind from every worker that runs one.
if #tail_end > 0 then redis.call('RPUSH', wait_key, unpack(tail_end)) end
-- No fewer than none, where they were miscounted; and Redis takes no -0.
holes = math.min(holes, tonumber(meta[5]) or 0)
if holes > 0 then add_to(meta_key, 'holes', -holes) end
