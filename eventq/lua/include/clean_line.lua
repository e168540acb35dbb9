-- A slice of `wait` for clean_jobs; the cursor is how many entries at the head are left where they are.
local at = tonumber(cursor) or 0
local entries, seen = redis.call('LRANGE', wait_key, at, at + EXAMINED - 1), {}
local looked, popped, is_prefix, ended = 0, 0, at == 0, #entries < EXAMINED
if #entries > 0 then
  local records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
  for index, id in ipairs(entries) do
    local from, is_plain = nil, false
    if records[index] and not seen[id] then from, is_plain = since(records[index], runs[index]) end
    if from and from > cutoff then
      is_prefix = false
      if is_plain then ended = true end
    elseif from then
      if #gone == most then
        ended = false
        break
      end
      gone[#gone + 1] = id
      seen[id] = true
    end
    looked = index
    if is_prefix then popped = index end
    if ended and from and from > cutoff then break end
  end
end
if popped > 0 then redis.call('LPOP', wait_key, popped) end
if #gone ~= popped then redis.call('HINCRBY', meta_key, 'holes', #gone - popped) end
if not ended then next_cursor = string.format('%.0f', at + looked - popped) end
