-- Running jobs whose lease ended before the cutoff, for clean_jobs: nobody renews them and nobody has swept. Each run ends as
-- stalled, so that starts stay what became of them, and then its job is removed.
-- include: runs
local stalled = {}
previous = 'waiting'
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases_key, '-inf', math.min(cutoff, now), 'LIMIT', 0, most)) do
  local run = read_run(redis.call('HGET', runs_key, id) or '')
  if run and run.state == 'active' then
    local record = redis.call('HGET', jobs_key, id) or ''
    local name = string.match(record, '^1\t%d+\t%d*\t%d*\t%a*\t([%w._:/ -]+)\t') or '__other__'
    gone[#gone + 1] = id
    count('stalled', name, 1)
    stalled[#stalled + 1] = '{"job_id":"' .. id .. '","name":"' .. name .. '","attempt":' .. (run.fails + 1) .. ',"worker":"'
      .. run.worker .. '","stalls":' .. (run.stalls + 1) .. ',"ran_ms":' .. math.max(0, now - run.started)
      .. ',"state":"waiting","previous":"active"}'
  end
  redis.call('ZREM', leases_key, id)
end
emit('stalled', stalled)
if #gone == most then next_cursor = 'more' end
