-- A slice of a sorted set for clean_jobs; the cursor is a score, and how many of that score were left where they are.
local key = state == 'delayed' and delayed_key or prioritized_key
local least, skip = string.match(cursor, '^(%S+) (%d+)$')
local rows = redis.call('ZRANGEBYSCORE', key, least or '-inf', '+inf', 'WITHSCORES', 'LIMIT', skip or 0, EXAMINED)
local ids, left, looked = {}, tonumber(skip) or 0, 0
for index = 1, #rows, 2 do ids[#ids + 1] = rows[index] end
if #ids > 0 then
  local records, runs = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids))
  for index, id in ipairs(ids) do
    local from, score = records[index] and since(records[index], runs[index]), rows[index * 2]
    if from and from <= cutoff and #gone == most then break end
    looked = index
    if score ~= least then least, left = score, 0 end
    if from and from <= cutoff then gone[#gone + 1] = id else left = left + 1 end
  end
  if #gone > 0 then redis.call('ZREM', key, unpack(gone)) end
end
if looked < #ids or #ids == EXAMINED then next_cursor = least .. ' ' .. string.format('%.0f', left) end
