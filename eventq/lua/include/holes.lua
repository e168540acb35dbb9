-- How many entries of the line are no jobs: every stored job stands in one set or waits, and who waits has one entry. Right where
-- all the rest is. Needs: NO_LEASE, meta_key, jobs_key, wait_key, the sets' keys.
local function count_holes()
  local waiting = redis.call('HLEN', jobs_key) + (redis.call('ZSCORE', leases_key, NO_LEASE) and 1 or 0)
  for _, key in ipairs({prioritized_key, delayed_key, leases_key, waiting_children_key, completed_key, failed_key}) do
    waiting = waiting - redis.call('ZCARD', key)
  end
  return redis.call('HGET', meta_key, 'holes') or '0', string.format('%.0f', math.max(0, redis.call('LLEN', wait_key) - waiting))
end
