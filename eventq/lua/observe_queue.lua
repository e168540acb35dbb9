#!lua flags=no-writes
-- Says how a queue is, all at one moment and in bounded time whatever its length: for whoever watches it.
-- KEYS: meta jobs runs wait prioritized delayed leases waiting_children completed failed events workers schedules slots totals
-- ARGV: entry id that a reader has come to, most schedules
-- Reply: OK, now, epoch, seq of the last event, paused (0 or 1), entries of the stream, ms of its oldest entry, ms of the oldest
--        entry after that id (-1 none), counts (waiting, prioritized, delayed, active, waiting_children, completed, failed), since
--        when the oldest is (waiting, prioritized: ready; delayed: due, if it is overdue; ms, -1 none), workers (name, record, ...),
--        schedules (id, ms of the next slot or -1, ms of the last or -1, ...), totals (field, number, ...), busy ms of all slots so far
--        | LAYOUT
-- Events: none
local meta_key, jobs_key, runs_key, wait_key, prioritized_key, delayed_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local events_key, workers_key, schedules_key, slots_key, totals_key = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
-- include: clock
-- include: layout
local ENDS, MOST_HOLES, PRIORITIES, RECORDS_BYTES = 20, 2000, 32, 1048576
local meta = redis.call('HMGET', meta_key, 'epoch', 'seq', 'paused', 'holes', 'busy_ms')

local function ms_of(entry)
  for index = 1, entry and #entry[2] or 0, 2 do
    if entry[2][index] == 'ms' then return tonumber(entry[2][index + 1]) or -1 end
  end
  return -1
end

-- Since when the oldest of these jobs is ready; those that are no longer in this state are holes.
local function oldest(ids, state)
  if #ids == 0 then return -1 end
  local records, runs, since = redis.call('HMGET', jobs_key, unpack(ids)), redis.call('HMGET', runs_key, unpack(ids)), -1
  for index = 1, #ids do
    local added, due = string.match(records[index] or '', '^1\t(%d+)\t(%d*)')
    local stands, ready = string.match(runs[index] or '', '^(%S+) %S+ %d+ (%d+)')
    if stands == state then ready = tonumber(ready)
    elseif added and not stands then ready = tonumber(due ~= '' and due or added)
    else ready = nil end
    if ready and (since < 0 or ready < since) then since = ready end
  end
  return since
end

-- The head of the line is the oldest, but for jobs that came back to it; of last-in-first-out ones it is the tail.
local length, head, at, page = redis.call('LLEN', wait_key), -1, 0, ENDS
while head < 0 and at < length and at < MOST_HOLES do
  head = oldest(redis.call('LRANGE', wait_key, at, at + page - 1), 'waiting')
  at, page = at + page, 100
end
local tail = oldest(redis.call('LRANGE', wait_key, -ENDS, -1), 'waiting')
local since = {head < 0 and tail or tail < 0 and head or math.min(head, tail)}
-- Each priority is a line of its own.
local firsts, low = {}, 0
for _ = 1, PRIORITIES do
  local first = redis.call('ZRANGE', prioritized_key, string.format('%.0f', low), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  if not first[1] then break end
  firsts[#firsts + 1] = first[1]
  low = (math.floor(tonumber(first[2]) / 4294967296) + 1) * 4294967296
end
since[2] = oldest(firsts, 'prioritized')
local due = redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2]
due = due and math.floor(tonumber(due))
since[3] = due and due < now and due or -1

local counts = {length - (tonumber(meta[4]) or 0)}
for index = 5, 10 do counts[#counts + 1] = redis.call('ZCARD', KEYS[index]) end
-- One member of leases is no job.
counts[4] = math.max(0, counts[4] - 1)

local schedules, slots, bytes = {}, redis.call('ZRANGE', slots_key, 0, ARGV[2] - 1, 'WITHSCORES'), 0
for index = 1, #slots, 2 do
  local last
  -- A definition may hold data: only so many of them are read.
  if bytes < RECORDS_BYTES then
    local record = redis.call('HGET', schedules_key, slots[index]) or ''
    bytes, last = bytes + #record, string.match(record, '^[^\t]*\t[^\t]*\t(%d+)\t')
  end
  schedules[#schedules + 1] = slots[index]
  schedules[#schedules + 1] = slots[index + 1] == 'inf' and -1 or tonumber(slots[index + 1])
  schedules[#schedules + 1] = tonumber(last) or -1
end
return {'OK', now, meta[1] or '', tonumber(meta[2]) or 0, meta[3] == '1' and 1 or 0, redis.call('XLEN', events_key),
  ms_of(redis.call('XRANGE', events_key, '-', '+', 'COUNT', 1)[1]),
  ms_of(redis.call('XRANGE', events_key, '(' .. ARGV[1], '+', 'COUNT', 1)[1]), counts, since,
  redis.call('HGETALL', workers_key), schedules, redis.call('HGETALL', totals_key), tonumber(meta[5]) or 0}
