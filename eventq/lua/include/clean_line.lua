-- A slice of `wait` for clean_jobs; the cursor is how many entries at the head are left where they are.
local at = tonumber(cursor) or 0
local entries, seen = redis.call('LRANGE', wait_key, at, at + EXAMINED - 1), {}
local looked, popped, is_prefix, ended = 0, 0, at == 0, #entries < EXAMINED
-- Only where no entry is a hole is the order of the line that of its jobs: an own id that was added again stands in it twice.
local in_order = not meta[5] or meta[5] == '0'
if #entries > 0 then
  local records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
  for index, id in ipairs(entries) do
    local from, is_plain = nil, false
    if records[index] and not seen[id] then from, is_plain = since(records[index], runs[index]) end
    if from and from > cutoff then
      is_prefix = false
      looked = index
      if is_plain and in_order then
        ended = true
        break
      end
    elseif from and #gone == most then
      ended = false
      break
    else
      if from then
        gone[#gone + 1] = id
        seen[id] = true
      end
      looked = index
      if is_prefix then popped = index end
    end
  end
end
if popped > 0 then redis.call('LPOP', wait_key, popped) end
if #gone ~= popped then add_to(meta_key, 'holes', #gone - popped) end
if not ended then next_cursor = string.format('%.0f', at + looked - popped) end
