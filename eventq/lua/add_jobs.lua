#!lua
-- Stores new jobs and puts them in line. All or nothing.
-- KEYS: meta calls timers jobs data wait prioritized delayed totals events marker
-- ARGV: writer, number, count, check ids ('1' when a caller chose one), then per job: id, name, trace fragment, options
--       (priority TAB flags), place ('' now, '+MS' delay, '@MS' due time), body (spec LF data), data kept apart ('' none)
-- Reply: OK, indexes (from 0) of ids that exist already, as text, now | STALE | LAYOUT
-- Events: duplicated, added
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local wait_key, prioritized_key, delayed_key = KEYS[6], KEYS[7], KEYS[8]
local totals_key, events_key, marker_key = KEYS[9], KEYS[10], KEYS[11]
-- include: clock
-- include: call
-- include: emit
-- include: totals
-- include: line
-- include: wake
if replayed then return {'OK', replayed, now} end
local amount, check_ids = tonumber(ARGV[3]), ARGV[4] == '1'
local earliest = tonumber(redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2]) or math.huge
local records, large, tail, places, lifo, added, duplicated, existing = {}, {}, {}, {}, {}, {}, {}, {}
local seen, sooner = {}, false
for index = 0, amount - 1 do
  local at = 5 + index * 7
  local id, name, trace, options, place = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if check_ids and (seen[id] or redis.call('HEXISTS', jobs_key, id) == 1) then
    existing[#existing + 1] = index
    duplicated[#duplicated + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '"}'
  else
    if check_ids then seen[id] = true end
    local due = ''
    if place ~= '' then
      due = tonumber(string.sub(place, 2))
      if string.sub(place, 1, 1) == '+' then due = now + due end
      if due <= now then due = '' end
    end
    local priority, flags = string.match(options, '^(%d*)\t(%a*)$')
    local state = due ~= '' and 'delayed' or priority ~= '' and 'prioritized' or 'waiting'
    local event = '{"job_id":"' .. id .. '","name":"' .. name .. '","state":"' .. state .. '"'
    if due ~= '' then
      places[#places + 1] = {id, due}
      sooner = sooner or due < earliest
      event = event .. ',"due_ms":' .. due
    elseif priority ~= '' then
      places[#places + 1] = {id, false, tonumber(priority)}
    elseif flags ~= '' and string.find(flags, 'l', 1, true) then
      lifo[#lifo + 1] = id
    else
      tail[#tail + 1] = id
    end
    if priority ~= '' then event = event .. ',"priority":' .. priority end
    if trace ~= '' then event = event .. ',' .. trace end
    added[#added + 1] = event .. '}'
    records[#records + 1] = id
    records[#records + 1] = '1\t' .. now .. '\t' .. due .. '\t' .. options .. '\t' .. name .. '\t' .. trace .. '\n'
      .. ARGV[at + 5]
    if ARGV[at + 6] ~= '' then
      large[#large + 1] = id
      large[#large + 1] = ARGV[at + 6]
    end
    count('added', name, 1)
  end
end
emit('duplicated', duplicated)
emit('added', added)
if #records > 0 then
  redis.call('HSET', jobs_key, unpack(records))
  if #large > 0 then redis.call('HSET', data_key, unpack(large)) end
  if #tail > 0 then redis.call('RPUSH', wait_key, unpack(tail)) end
  if #lifo > 0 then redis.call('LPUSH', wait_key, unpack(lifo)) end
  for _, place in ipairs(places) do
    if place[2] then delay_until(place[1], place[2])
    else redis.call('ZADD', prioritized_key, new_place(place[3]), place[1]) end
  end
  save_totals()
  if sooner then redis.call('ZADD', marker_key, 0, 'due') end
  wake(#records - #places == 0 and #places or #records)
end
local reply = table.concat(existing, ' ')
close_call(reply)
return {'OK', reply, now}
