-- Ends the runs whose lease ran out: back to the head of the line, or failed after `max_stalls` of them.
-- Needs: now, emit, count, read_run, write_run, line_up, evict, jobs_key, runs_key, results_key, leases_key, failed_key.
local RECORD = '^1\t(%d+)\t(%d*)\t%d*\t%a*\t([%w._:/ -]+)\t([^\t\n]*)'
local DAMAGED = '{"type":"UnreadableJob","message":"what is stored of its runs is damaged"}'
local STALLED = '{"type":"Stalled","message":"the worker stopped renewing its lease"}'
local function reclaim(ids, max_stalls, keep, age)
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  local stalled, failed, texts, results, back, finished = {}, {}, {}, {}, {}, {}
  for index, id in ipairs(ids) do
    local run = runs[index] and (read_run(runs[index]) or {state = 'active', token = '-', finished = 0, ready = now,
      started = now, starts = 1, fails = 0, stalls = max_stalls, releases = 0, place = '-', worker = '-', is_damaged = true})
    if run and run.state == 'active' then
      local added, due, name, trace = string.match(records[index] or '', RECORD)
      if not name or #added > 14 or #due > 14 then added, name, trace = nil, '__other__', '' end
      if trace ~= '' and not pcall(cjson.decode, '{' .. trace .. '}') then trace = '' end
      run.stalls = run.stalls + 1
      local facts = '{"job_id":"' .. id .. '","name":"' .. name .. '","attempt":' .. (run.fails + 1) .. ',"worker":"'
        .. run.worker .. '","stalls":' .. run.stalls .. ',"ran_ms":' .. math.max(0, now - run.started)
      if trace ~= '' then facts = facts .. ',' .. trace end
      count('stalled', name, 1)
      run.token, run.worker = '-', '-'
      if run.stalls > max_stalls then
        local why = run.is_damaged and DAMAGED or STALLED
        run.state, run.finished = 'failed', now
        if added and run.starts ~= '1' then
          facts = facts .. ',"total_ms":' .. math.max(0, now - (due ~= '' and due or added))
        end
        failed[#failed + 1] = facts .. ',"waited_ms":' .. math.max(0, run.started - run.ready)
          .. ',"reason":"stalled","exhausted":false,"error":' .. why .. '}'
        finished[#finished + 1] = now
        finished[#finished + 1] = id
        results[#results + 1] = id
        results[#results + 1] = why
        count('failed', name, 1)
      else
        run.state, run.ready = run.place ~= '-' and 'prioritized' or 'waiting', now_text
        stalled[#stalled + 1] = facts .. ',"state":"' .. run.state .. '","previous":"active"}'
        back[#back + 1] = {id, run.place}
      end
      texts[#texts + 1] = id
      texts[#texts + 1] = write_run(run)
    end
  end
  emit('stalled', stalled)
  emit('failed', failed)
  redis.call('ZREM', leases_key, unpack(ids))
  if #texts > 0 then redis.call('HSET', runs_key, unpack(texts)) end
  if #results > 0 then redis.call('HSET', results_key, unpack(results)) end
  for index = #back, 1, -1 do line_up(back[index][1], back[index][2], 'head') end
  if #finished > 0 then
    redis.call('ZADD', failed_key, unpack(finished))
    evict(failed_key, 'failed', keep, age)
  end
  return #ids
end
