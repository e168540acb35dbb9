-- Where jobs say they are and where they stand: what examine_jobs finds and what repair_jobs mends is told apart here, once.
-- look(index) returns a letter, for some the job's run, and the number of its own set (0 the line):
--   f fine, w waiting and in no set, m nothing is there, d it cannot be read, l not stored, but its run goes on,
--   o left over from a job that is not stored, a running without a lease, r its run is lost, s in no set, x in another, or in two.
-- Needs: now, ids, said_in_line, read_run, NO_LEASE, the columns of records and states.
local STATES = {waiting = 0, prioritized = 1, delayed = 2, active = 3, completed = 5, failed = 6}
local ENDS, SETS = 1000, {prioritized_key, delayed_key, leases_key, waiting_children_key, completed_key, failed_key}
local records, runs, scores = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids)), {}
for set, key in ipairs(SETS) do scores[set] = redis.call('ZMSCORE', key, unpack(ids)) end

-- Whatever is planted there goes into no event, and into no score.
local function can_be_told(id, run)
  return not string.find(id, '[^%w._:-]') and (run.place == '-' or string.find(run.place, '^%d+$'))
    and not string.find(run.worker, '["\\%c]')
end

-- What is left where nothing is stored. A run whose lease goes on is its worker's until it ends.
local function look_at_rest(index, run, sets)
  local id = ids[index]
  if run and run.state == 'active' and can_be_told(id, run) then
    local lease = scores[3][index]
    return lease and tonumber(lease) > now and 'l' or 'a', run, 3
  end
  local rest = sets > 0 or runs[index]
  for _, key in ipairs({data_key, results_key, progress_key, logs_key}) do
    rest = rest or redis.call('HEXISTS', key, id) == 1
  end
  return rest and 'o' or 'm', run
end

-- Whether it stands in line, as far as is known: the caller has read all of it, or it stands at either end.
local ends
local function is_in_line(id)
  if said_in_line then return true end
  if not ends then
    ends = {}
    for _, each in ipairs(redis.call('LRANGE', wait_key, 0, ENDS - 1)) do ends[each] = true end
    for _, each in ipairs(redis.call('LRANGE', wait_key, -ENDS, -1)) do ends[each] = true end
  end
  return ends[id]
end

local function look(index)
  local id, record, text = ids[index], records[index], runs[index]
  if id == NO_LEASE then return 'f' end
  local run, sets, own = text and read_run(text) or nil, 0, nil
  for set = 1, #SETS do
    if scores[set][index] then sets = sets + 1 end
  end
  if not record then return look_at_rest(index, run, sets) end
  local added, due, priority, name = string.match(record, '^1\t(%d+)\t(%d*)\t(%d*)\t%a*\t([^\t\n]*)')
  if name and string.find(name, '[^%w._:/ -]') or not can_be_told(id, run or {place = '-', worker = '-'}) then return 'd' end
  if text then
    own = run and STATES[run.state]
    -- Who is prioritized has a place among its priority.
    if not own or own == 1 and run.place == '-' then return 'd' end
  elseif not added then
    return 'd'
  else
    own = due ~= '' and 2 or priority ~= '' and 1 or 0
    local is_new = sets == 0 or own > 0 and scores[own][index] or own == 0 and is_in_line(id)
    if not is_new then
      -- Who never ran and stands elsewhere has lost its run: taken for a new job it would run again, or before its time.
      local moved, more = nil, false
      for _, set in ipairs({1, 2, 3, 5, 6}) do
        if scores[set][index] then moved, more = set, moved end
      end
      if more then return 'd' end -- nothing says which of them it was
      if moved then return 'r', nil, moved end
    end
  end
  if own == 0 then return sets == 0 and 'w' or 'x', run, own end
  if not scores[own][index] then return own == 3 and 'a' or sets == 0 and 's' or 'x', run, own end
  return sets == 1 and 'f' or 'x', run, own
end
