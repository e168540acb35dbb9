#!lua flags=allow-oom
-- Puts waiting jobs that nobody would ever come to back at the head of the line, in the order they are named, and counts the
-- holes of the line anew. A job whose run is not as it was read has moved since, and is left; so is one that stands at either end
-- of the line: a line of no more entries than that is looked through.
-- KEYS: meta calls timers jobs runs wait prioritized delayed leases waiting_children completed failed marker
-- ARGV: writer, number, count the holes ('1': all the rest is right), count, then per job: id, its run as it was read ('' none)
-- Reply: OK, per job a letter (p put back, s not so any more), holes that meta said, holes there are | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, jobs_key, runs_key, wait_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local prioritized_key, delayed_key, leases_key, waiting_children_key = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local completed_key, failed_key, marker_key = KEYS[11], KEYS[12], KEYS[13]
-- include: clock
-- include: call
if replayed then
  local letters, said, holes = string.match(replayed, '^(%a*) (%S+) (%d+)$')
  return {'OK', letters, said, holes}
end
-- include: leases
-- include: wake
-- include: holes
local ENDS = 1000
local SETS = {prioritized_key, delayed_key, leases_key, waiting_children_key, completed_key, failed_key}
local ids, letters, back, standing = {}, {}, {}, {}
for index = 1, tonumber(ARGV[4]) do ids[index] = ARGV[3 + index * 2] end
if #ids > 0 then
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  for _, id in ipairs(redis.call('LRANGE', wait_key, 0, ENDS - 1)) do standing[id] = true end
  for _, id in ipairs(redis.call('LRANGE', wait_key, -ENDS, -1)) do standing[id] = true end
  for _, key in ipairs(SETS) do
    for index, score in ipairs(redis.call('ZMSCORE', key, unpack(ids))) do
      if score then standing[ids[index]] = true end
    end
  end
  for index, id in ipairs(ids) do
    local due, priority = string.match(records[index] or '', '^1\t%d+\t(%d*)\t(%d*)')
    local run, is_waiting = runs[index] or '', due == '' and priority == ''
    if run ~= '' then is_waiting = records[index] and string.sub(run, 1, 8) == 'waiting ' end
    letters[index] = is_waiting and run == ARGV[4 + index * 2] and not standing[id] and 'p' or 's'
    if letters[index] == 'p' then
      back[#back + 1] = id
      standing[id] = true
    end
  end
end
for index = #back, 1, -1 do redis.call('LPUSH', wait_key, back[index]) end
local said, holes = count_holes()
if ARGV[3] ~= '1' then holes = said elseif said ~= holes then redis.call('HSET', meta_key, 'holes', holes) end
if #back > 0 then wake(#back) end
local reply = table.concat(letters)
close_call(reply .. ' ' .. said .. ' ' .. holes)
return {'OK', reply, said, holes}
