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
if replayed then
  -- Whoever waits for a confirmation waits for what its connection wrote, and this may be another one than the first time.
  redis.call('HSET', calls_key, writer, call_record)
  return {'OK', replayed, now}
end
local amount, check_ids, argv = tonumber(ARGV[3]), ARGV[4] == '1', ARGV
local records, large, tail, places, lifo, added, duplicated, existing = {}, {}, {}, {}, {}, {}, {}, {}
local claimable, new, last, seen, soonest, names = 0, 0, 0, {}, false, {}
for index = 0, amount - 1 do
  local at = 5 + index * 7
  local id, name, trace, options, place = argv[at], argv[at + 1], argv[at + 2], argv[at + 3], argv[at + 4]
  if check_ids and (seen[id] or redis.call('HEXISTS', jobs_key, id) == 1) then
    existing[#existing + 1] = index
    duplicated[#duplicated + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '"}'
  else
    if check_ids then seen[id] = true end
    local due, facts = '', '"'
    if place == '' and (options == '\t' or options == '\td') then
      last = last + 1
      tail[last] = id
      facts = '","state":"waiting"'
    else
      -- include: place
    end
    if trace ~= '' then facts = facts .. ',' .. trace end
    new = new + 1
    added[new] = '{"job_id":"' .. id .. '","name":"' .. name .. facts .. '}'
    records[new * 2 - 1] = id
    records[new * 2] = '1\t' .. now_text .. '\t' .. due .. '\t' .. options .. '\t' .. name .. '\t' .. trace .. '\n'
      .. argv[at + 5]
    if argv[at + 6] ~= '' then large[#large + 1], large[#large + 2] = id, argv[at + 6] end
    names[name] = (names[name] or 0) + 1
  end
end
claimable = claimable + last
emit('duplicated', duplicated)
emit('added', added)
if new > 0 then
  redis.call('HSET', jobs_key, unpack(records))
  if #large > 0 then redis.call('HSET', data_key, unpack(large)) end
  if #tail > 0 then redis.call('RPUSH', wait_key, unpack(tail)) end
  if #lifo > 0 then redis.call('LPUSH', wait_key, unpack(lifo)) end
  if soonest then
    -- include: arm_due
  end
  if #places > 0 then
    -- include: line
    for _, place in ipairs(places) do
      if place[2] then delay_until(place[1], place[2])
      else redis.call('ZADD', prioritized_key, new_place(place[3]), place[1]) end
    end
  end
  local totals = {added = names}
  -- include: totals
  if claimable > 0 then
    -- include: wake
    wake(claimable, true)
  end
end
local reply = table.concat(existing, ' ')
close_call(reply)
return {'OK', reply, now}
