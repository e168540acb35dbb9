-- Authoritative totals per job name, written by the script that makes the transition: `totals[kind][name]` is collected in
-- the script and added here, once per call. After 100 names: __other__. A field that did not exist before is the moment to
-- ask whether its name stands for itself: when it is added and there is room, or has been added. Needs: totals, meta_key,
-- totals_key.
for kind, counts in pairs(totals) do
  for name, n in pairs(counts) do
    if add_to(totals_key, kind .. ' ' .. name, n) == n then
      local listed
      if kind == 'added' then
        listed = (tonumber(redis.call('HGET', meta_key, 'names')) or 0) < 100
        if listed then add_to(meta_key, 'names', 1) end
      else
        listed = name == '__other__' or redis.call('HEXISTS', totals_key, 'added ' .. name) == 1
      end
      if not listed then
        redis.call('HDEL', totals_key, kind .. ' ' .. name)
        add_to(totals_key, kind .. ' __other__', n)
      end
    end
  end
end
