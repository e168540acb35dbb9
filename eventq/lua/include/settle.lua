-- Records outcomes: (id, token, word, fragment, body, extra) from ARGV[14 + progressed * 4]. Sets `stale` to the indexes of
-- those whose token is no longer the job's, `came_back` to how many came into line. Needs: now, emit, totals, the columns.
-- Inline and with counters on purpose: a closure, a global name or a table's length for every job costs as much as the rest.
local argv, match, sub, find, first = ARGV, string.match, string.sub, string.find, 14 + progressed * 4
local COUNTERS = '^(%d+) (%d+) (%d+) (%d+) ([%d-]+) ([%w._:@-]+)$'
local settling, done, times, finished, last_fragment, name = {}, {}, {}, {}, nil, nil
for index = 0, settled - 1 do settling[index + 1] = argv[first + index * 6] end
local current = redis.call('HMGET', runs_key, unpack(settling))
local completed, retrying, failed, retries, postponed = {}, {}, {}, {}, {}
local well, badly = {ids = {}, rules = {}}, {ids = {}, rules = {}}
local texts, results, refused, recorded, size, ended = {}, {}, {}, {}, 0, 0
for index = 1, settled do
  local id, at = settling[index], first + (index - 1) * 6
  local prefix, text = 'active ' .. argv[at + 1] .. ' ', current[index]
  local ready, started, rest
  if text and sub(text, 1, #prefix) == prefix then ready, started, rest = match(text, '^0 (%d+) (%d+) (.*)$', #prefix + 1) end
  if not rest or argv[at + 2] ~= 'completed' and not match(rest, COUNTERS) then rest = nil end -- damaged: the sweep ends it
  if not text or done[id] or not rest then
    refused[#refused + 1] = index - 1
  else
    done[id] = true
    local word, fragment, body, extra = argv[at + 2], argv[at + 3], argv[at + 4], argv[at + 5]
    -- Fragments of jobs without a trace are mostly alike, those of others never.
    if fragment ~= last_fragment then
      last_fragment, name = fragment, sub(fragment, 9, find(fragment, '"', 9, true) - 1)
    end
    -- Jobs of one claim share their times: the text is made once.
    local both = ready .. started
    local facts = times[both]
    if not facts then
      local began = #started > 14 and now or started -- damaged
      facts = ',"waited_ms":' .. math.max(0, began - ready) .. ',"ran_ms":' .. math.max(0, now - began)
      times[both] = facts
    end
    local run
    if word == 'completed' then
      local total = ''
      if sub(rest, 1, 2) ~= '1 ' then
        -- include: duration
      end
      ended = ended + 1
      completed[ended] = '{"job_id":"' .. id .. '",' .. fragment .. facts .. total .. '}'
      well.ids[ended], well.rules[ended] = id, extra
      finished[name] = (finished[name] or 0) + 1
      run = 'completed - ' .. now_text .. ' ' .. ready .. ' ' .. started .. ' ' .. rest
    else
      local event = '{"job_id":"' .. id .. '",' .. fragment .. facts
      if word == 'postpone' then
        -- include: postpone
      else
        -- include: fail
      end
    end
    size = size + 1
    recorded[size], texts[size * 2 - 1], texts[size * 2] = id, id, run
    if body ~= '' then results[#results + 1], results[#results + 2] = id, body end
  end
end
if ended > 0 then totals.completed = finished end
stale = table.concat(refused, ' ')
if size > 0 then
  emit('completed', completed)
  emit('retrying', retrying)
  emit('failed', failed)
  emit('delayed', postponed)
  redis.call('HSET', runs_key, unpack(texts))
  redis.call('ZREM', leases_key, unpack(recorded))
  if #results > 0 then redis.call('HSET', results_key, unpack(results)) end
  -- include: retention
  if ended > 0 then finish(completed_key, 'completed', well, tonumber(argv[6]), tonumber(argv[7])) end
  if #badly.ids > 0 then finish(failed_key, 'failed', badly, tonumber(argv[8]), tonumber(argv[9])) end
  if #retries > 0 then
    -- include: line
    -- What was due before these failed has waited longer.
    -- include: due
    if due_in and due_in <= 0 then
      -- include: runs
      -- include: promote
      came_back = promote(100)
    end
    for _, retry in ipairs(retries) do
      if retry[2] == 'delayed' then delay_until(retry[1], retry[3]) else line_up(retry[1], retry[4], 'tail') end
    end
    came_back = came_back + #retries
  end
end
