-- Takes jobs out of every record column and tells it in one event. The caller has taken them out of their state.
-- Needs: emit, jobs_key, data_key, runs_key, results_key, progress_key, logs_key. At most 500 ids.
local function forget(ids, previous, reason)
  if #ids == 0 then return end
  emit('removed', {'{"job_ids":["' .. table.concat(ids, '","') .. '"],"previous":"' .. previous .. '","reason":"'
    .. reason .. '"}'})
  for _, key in ipairs({jobs_key, data_key, runs_key, results_key, progress_key, logs_key}) do
    redis.call('HDEL', key, unpack(ids))
  end
end
