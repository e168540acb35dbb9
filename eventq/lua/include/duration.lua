-- What a job that ran more than once took in all, from when it was first ready: `total`, a fact for its last event. Needs: now,
-- id, match, jobs_key. Of a job that ran once it is waited + ran, which the event says anyway.
local added, due = match(redis.call('HGET', jobs_key, id) or '', '^1\t(%d+)\t(%d*)')
total = added and ',"total_ms":' .. math.max(0, now - (due ~= '' and due or added)) or ''
