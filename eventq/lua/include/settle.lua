-- Records outcomes: (id, token, word, fragment, body, extra) from ARGV[first]. Returns the indexes of stale ones as text.
-- Needs: now, emit, count, line_up, delay_until, evict, forget, finished_score and the record columns.
local RUNNING = '^active %S+ %S+ (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (.*)$'

local function finish(key, state, jobs, keep, age)
  if #jobs == 0 then return end
  local scores, gone = {}, {}
  for _, job in ipairs(jobs) do
    local id, rule = job[1], job[2]
    if rule == '0' then
      gone[#gone + 1] = id
    else
      scores[#scores + 1] = finished_score(id, rule)
      scores[#scores + 1] = id
      local own = string.match(rule, 'count:(%d+)')
      if own then keep = keep < 0 and tonumber(own) or math.min(keep, tonumber(own)) end
      if rule == '' then jobs.by_queue = true end
    end
  end
  forget(gone, state, 'retention')
  if #scores == 0 then return end
  redis.call('ZADD', key, unpack(scores))
  evict(key, state, keep, jobs.by_queue and age or -1, #scores)
end

local function settle(first, amount)
  local ids, gone = {}, {}
  for index = 0, amount - 1 do ids[index + 1] = ARGV[first + index * 6] end
  local current = redis.call('HMGET', runs_key, unpack(ids))
  local outcomes = {completed = {}, retrying = {}, failed = {}}
  local kept = {completed = {}, failed = {}}
  local texts, results, stale, settled, retries = {}, {}, {}, {}, {}
  for index, id in ipairs(ids) do
    local at = first + (index - 1) * 6
    local prefix, text = 'active ' .. ARGV[at + 1] .. ' ', current[index]
    if not text or gone[id] or string.sub(text, 1, #prefix) ~= prefix then
      stale[#stale + 1] = index - 1
    else
      local word, fragment, body, extra = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
      local ready, started, starts, fails, stalls, releases, place, by = string.match(text, RUNNING)
      local kind, state, due, name = 'completed', 'completed', ready, string.match(fragment, '^"name":"([^"]*)"')
      local event = '{"job_id":"' .. id .. '",' .. fragment .. ',"waited_ms":' .. (started - ready) .. ',"ran_ms":'
        .. (now - started)
      gone[id] = true
      if word == 'retry' then
        kind, fails, due = 'retrying', fails + 1, now + tonumber(extra)
        state = due > now and 'delayed' or place ~= '-' and 'prioritized' or 'waiting'
        event = event .. ',"state":"' .. state .. '","due_ms":' .. due
        retries[#retries + 1] = {id, state, due, place}
        count('retrying', name, 1)
      else
        if word ~= 'completed' then
          kind, state, fails = 'failed', 'failed', fails + 1
          if word == 'exhausted' then count('exhausted', name, 1) end
        end
        count(kind, name, 1)
        kept[kind][#kept[kind] + 1] = {id, extra}
      end
      outcomes[kind][#outcomes[kind] + 1] = event .. '}'
      settled[#settled + 1] = id
      texts[#texts + 1] = id
      texts[#texts + 1] = state .. ' - ' .. (kind == 'retrying' and 0 or now) .. ' ' .. due .. ' ' .. started .. ' '
        .. starts .. ' ' .. fails .. ' ' .. stalls .. ' ' .. releases .. ' ' .. place .. ' ' .. by
      if body ~= '' then
        results[#results + 1] = id
        results[#results + 1] = body
      elseif fails ~= '0' then
        redis.call('HDEL', results_key, id)
      end
    end
  end
  if #settled > 0 then
    emit('completed', outcomes.completed)
    emit('retrying', outcomes.retrying)
    emit('failed', outcomes.failed)
    redis.call('HSET', runs_key, unpack(texts))
    redis.call('ZREM', leases_key, unpack(settled))
    if #results > 0 then redis.call('HSET', results_key, unpack(results)) end
    for _, retry in ipairs(retries) do
      if retry[2] == 'delayed' then delay_until(retry[1], retry[3]) else line_up(retry[1], retry[4], 'tail') end
    end
    finish(completed_key, 'completed', kept.completed, tonumber(ARGV[6]), tonumber(ARGV[7]))
    finish(failed_key, 'failed', kept.failed, tonumber(ARGV[8]), tonumber(ARGV[9]))
  end
  return table.concat(stale, ' ')
end
