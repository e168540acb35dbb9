-- A slice of a sorted set for clean_jobs. The cursor is the last job that was left where it is, with its score: after it the walk
-- goes on, or where it stood, if it is gone by now.
local key = state == 'delayed' and delayed_key or prioritized_key
local score, kept = string.match(cursor, '^(%S+) (%S+)$')
local start = 0
if kept and redis.call('ZSCORE', key, kept) == score then start = redis.call('ZRANK', key, kept) + 1
elseif kept then start = redis.call('ZCOUNT', key, '-inf', '(' .. score) end
local rows = redis.call('ZRANGE', key, start, start + EXAMINED - 1, 'WITHSCORES')
local ids, looked, last = {}, 0, cursor ~= '' and cursor or '-'
for index = 1, #rows, 2 do ids[#ids + 1] = rows[index] end
if #ids > 0 then
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  for index, id in ipairs(ids) do
    local from = records[index] and since(records[index], runs[index])
    local goes = from and from <= cutoff
    if goes and #gone == most then break end
    looked = index
    if goes then gone[#gone + 1] = id else last = rows[index * 2] .. ' ' .. id end
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
end
if looked < #ids or #ids == EXAMINED then next_cursor = last end
