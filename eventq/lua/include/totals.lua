-- Authoritative totals per job name, written by the script that makes the transition: `totals[kind][name]` is collected in
-- the script and added here, once per call. After 100 names: __other__. Needs: totals, meta_key, totals_key.
do
  local names, fields, listed = {}, {}, {}
  for _, counts in pairs(totals) do
    for name in pairs(counts) do
      if listed[name] == nil then
        listed[name] = false
        names[#names + 1], fields[#fields + 1] = name, 'added ' .. name
      end
    end
  end
  if #names > 0 then
    local known, room = redis.call('HMGET', totals_key, unpack(fields)), nil
    for index, name in ipairs(names) do
      listed[name] = known[index] and true
      if not known[index] and totals.added and totals.added[name] then
        room = room or 100 - (tonumber(redis.call('HGET', meta_key, 'names')) or 0)
        if room > 0 then
          room, listed[name] = room - 1, true
          redis.call('HINCRBY', meta_key, 'names', 1)
        end
      end
    end
    for kind, counts in pairs(totals) do
      for name, n in pairs(counts) do
        redis.call('HINCRBY', totals_key, kind .. ' ' .. (listed[name] and name or '__other__'), n)
      end
    end
  end
end
