#!lua flags=allow-oom
-- Mends jobs that do not stand where they say, and takes out what is left of jobs that are not stored. Each is looked at again:
-- what is as it should be by now stays as it is. What a job says counts, not where it stands. No job is ended or run by it but
-- those that run without a lease: they go back to the line as stalled, as a sweep would have it.
-- KEYS: meta calls timers jobs data runs results progress logs wait prioritized delayed leases waiting_children completed failed
--       totals events marker
-- ARGV: writer, number, max stalls, whether all are known to stand in line ('1'), count, then ids
-- Reply: OK, per job the letter of what was found (see include standing): o, a, r, s and x are mended | STALE | LAYOUT
-- Events: stalled, failed, removed
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local runs_key, results_key, progress_key, logs_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local wait_key, prioritized_key, delayed_key, leases_key = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
local waiting_children_key, completed_key, failed_key = KEYS[14], KEYS[15], KEYS[16]
local totals_key, events_key, marker_key = KEYS[17], KEYS[18], KEYS[19]
-- include: clock
-- include: call
if replayed then return {'OK', replayed} end
-- include: emit
-- include: count
-- include: leases
-- include: runs
-- include: line
-- include: wake
local PINNED, SLICE = 1125899906842624, 100
-- include: forget
-- include: evict
-- include: reclaim
local ids, letters, seen, taken_back, gone, nameless, moves, rebuilt, wrong = {}, {}, {}, {}, {}, {}, {}, {}, {}
local said_in_line = ARGV[4] == '1'
for index = 1, tonumber(ARGV[5]) do ids[index] = ARGV[5 + index] end
-- include: standing
local NAMES = {'prioritized', 'delayed', 'active', 'waiting_children', 'completed', 'failed'}
local MENDED = {o = true, a = true, r = true, s = true, x = true}

-- The first set it stands in, by name.
local function stands_in(index)
  for set, name in ipairs(NAMES) do
    if scores[set][index] then return name end
  end
end

-- A removal is told where something was known of the job's state. One in `leases` without a run never was.
local function take_out(index, id, run)
  local state = run and STATES[run.state] and run.state or stands_in(index)
  if not state or state == 'active' or state == 'waiting_children' or string.find(id, '[^%w._:-]') then
    nameless[#nameless + 1] = id
  else
    gone[state] = gone[state] or {}
    gone[state][#gone[state] + 1] = id
  end
end

-- What the place of a job tells of its run, whose text is lost.
local function rebuild(index, id, own)
  local added, priority = string.match(records[index], '^1\t(%d+)\t%d*\t(%d*)')
  local score, ran = tonumber(scores[own][index]), own > 2
  local place = own == 1 and string.format('%.0f', score) or priority ~= '' and new_place(priority) or '-'
  local run = {state = NAMES[own], token = '-', finished = 0, ready = added, started = ran and now_text or 0, starts = ran and 1 or 0,
    fails = own == 6 and 1 or 0, stalls = 0, releases = 0, place = place, worker = '-'}
  if own == 2 then run.ready = string.format('%.0f', math.floor(score)) end
  if own > 3 then run.finished = string.format('%.0f', score % PINNED) end
  return write_run(run)
end

local holes = 0
for index, id in ipairs(ids) do
  local letter, run, own = look(index)
  if seen[id] then letter = 'm' end
  seen[id], letters[index] = true, letter
  if MENDED[letter] then
    for set = 1, #SETS do
      if scores[set][index] and set ~= own then
        wrong[set] = wrong[set] or {}
        table.insert(wrong[set], id)
      end
    end
    if letter == 'o' then take_out(index, id, run) end
    if letter == 'r' then
      rebuilt[#rebuilt + 1] = id
      rebuilt[#rebuilt + 1] = rebuild(index, id, own)
    end
    if letter == 'a' or letter == 'r' and own == 3 then
      taken_back[#taken_back + 1] = id
      if not records[index] then -- it goes by way of the line, so that its start is accounted for
        take_out(index, id, {state = run.place ~= '-' and 'prioritized' or 'waiting'})
        if run.place == '-' then holes = holes + 1 end
      end
    elseif own and own > 0 and not scores[own][index] then
      moves[#moves + 1] = {id, own, run, records[index]}
    end
  end
end
-- include: repair_moves
if #taken_back + #moves > 0 then wake(#taken_back + #moves) end
-- include: totals
local reply = table.concat(letters)
close_call(reply)
return {'OK', reply}
