-- Records outcomes: (id, token, word, fragment, body, extra) from ARGV[first]. Returns the indexes of stale ones as text,
-- and how many jobs came back into line. Needs: now, emit, count, line_up, delay_until, evict, forget, finished_score.
local RUNNING = '^0 (%d+) (%d+) (.*)$'
local COUNTERS = '^(%d+) (%d+) (%d+) (%d+) (%S+) (.*)$'

local function finish(key, state, jobs, keep, age)
  if #jobs.ids == 0 then return end
  local scores, gone, by_queue, size = {}, {}, false, 0
  for index, id in ipairs(jobs.ids) do
    local rule = jobs.rules[index]
    if rule == '0' then
      gone[#gone + 1] = id
    else
      by_queue = by_queue or rule == ''
      local own = rule ~= '' and string.match(rule, 'count:(%d+)')
      if own then keep = keep < 0 and tonumber(own) or math.min(keep, tonumber(own)) end
      scores[size + 1], scores[size + 2] = finished_score(id, rule), id
      size = size + 2
    end
  end
  forget(gone, state, 'retention')
  if size == 0 then return end
  redis.call('ZADD', key, unpack(scores))
  evict(key, state, keep, by_queue and age or -1)
end

-- An attempt that failed: another one (retry), or the end (failed, exhausted). Returns the event, its new run, its due time.
local function fail(word, extra, ready, started, rest, event, name)
  local starts, fails, stalls, releases, place, by = string.match(rest, COUNTERS)
  local counters = starts .. ' ' .. (fails + 1) .. ' ' .. stalls .. ' ' .. releases .. ' ' .. place .. ' ' .. by
  if word ~= 'retry' then
    count('failed', name, 1)
    if word == 'exhausted' then count('exhausted', name, 1) end
    return event .. '}', 'failed - ' .. now_text .. ' ' .. ready .. ' ' .. started .. ' ' .. counters
  end
  count('retrying', name, 1)
  local due = now + tonumber(extra)
  local state = due > now and 'delayed' or place ~= '-' and 'prioritized' or 'waiting'
  return event .. ',"state":"' .. state .. '","due_ms":' .. due .. '}',
    state .. ' - 0 ' .. due .. ' ' .. started .. ' ' .. counters, {state, due, place}
end

local function settle(first, amount)
  local ids, done, names, times = {}, {}, {}, {}
  -- Locals and counters: a global name or the length of a table, looked up for every job, costs as much as the rest.
  local argv, match, sub = ARGV, string.match, string.sub
  for index = 0, amount - 1 do ids[index + 1] = argv[first + index * 6] end
  local current = redis.call('HMGET', runs_key, unpack(ids))
  local completed, retrying, failed, finished = {}, {}, {}, {}
  local well, badly = {ids = {}, rules = {}}, {ids = {}, rules = {}}
  local texts, results, stale, settled, retries, size, ended = {}, {}, {}, {}, {}, 0, 0
  for index = 1, amount do
    local id, at = ids[index], first + (index - 1) * 6
    local prefix, text = 'active ' .. argv[at + 1] .. ' ', current[index]
    if not text or done[id] or sub(text, 1, #prefix) ~= prefix then
      stale[#stale + 1] = index - 1
    else
      done[id] = true
      local word, fragment, body, extra = argv[at + 2], argv[at + 3], argv[at + 4], argv[at + 5]
      local ready, started, rest = match(text, RUNNING, #prefix + 1)
      local name = names[fragment]
      if not name then
        name = match(fragment, '^"name":"([^"]*)"')
        names[fragment] = name
      end
      -- Jobs of one claim share their times: the text is made once.
      local both = ready .. started
      local facts = times[both]
      if not facts then
        facts = ',"waited_ms":' .. math.max(0, started - ready) .. ',"ran_ms":' .. (now - started)
        times[both] = facts
      end
      local event = '{"job_id":"' .. id .. '",' .. fragment .. facts
      local run
      if word == 'completed' then
        ended = ended + 1
        completed[ended], well.ids[ended], well.rules[ended] = event .. '}', id, extra
        finished[name] = (finished[name] or 0) + 1
        run = 'completed - ' .. now_text .. ' ' .. ready .. ' ' .. started .. ' ' .. rest
      else
        local again
        event, run, again = fail(word, extra, ready, started, rest, event, name)
        if again then
          retrying[#retrying + 1] = event
          retries[#retries + 1] = {id, again[1], again[2], again[3]}
        else
          failed[#failed + 1] = event
          badly.ids[#badly.ids + 1], badly.rules[#badly.rules + 1] = id, extra
        end
      end
      size = size + 1
      settled[size], texts[size * 2 - 1], texts[size * 2] = id, id, run
      if body ~= '' then results[#results + 1], results[#results + 2] = id, body end
    end
  end
  for name, n in pairs(finished) do count('completed', name, n) end
  if size > 0 then
    emit('completed', completed)
    emit('retrying', retrying)
    emit('failed', failed)
    redis.call('HSET', runs_key, unpack(texts))
    redis.call('ZREM', leases_key, unpack(settled))
    if #results > 0 then redis.call('HSET', results_key, unpack(results)) end
    for _, retry in ipairs(retries) do
      if retry[2] == 'delayed' then delay_until(retry[1], retry[3]) else line_up(retry[1], retry[4], 'tail') end
    end
    finish(completed_key, 'completed', well, tonumber(ARGV[6]), tonumber(ARGV[7]))
    finish(failed_key, 'failed', badly, tonumber(ARGV[8]), tonumber(ARGV[9]))
  end
  return table.concat(stale, ' '), #retries
end
