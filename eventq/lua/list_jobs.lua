#!lua flags=no-writes
-- Lists the ids of one state, a page of them. Holes in `wait` are passed over.
-- KEYS: meta jobs runs wait prioritized delayed leases waiting_children completed failed
-- ARGV: state (a column's word), start, limit (at most 500), newest first ('1')
-- Reply: OK, ids | LAYOUT
-- Events: none
local meta_key, jobs_key, runs_key, wait_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: layout
local PINNED = 1125899906842624
local sets = {prioritized = KEYS[5], delayed = KEYS[6], active = KEYS[7], waiting_children = KEYS[8], completed = KEYS[9],
  failed = KEYS[10]}
local state, start, limit, newest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local function waits(id)
  local run = redis.call('HGET', runs_key, id)
  if run then return string.sub(run, 1, 8) == 'waiting ' end
  local record = redis.call('HGET', jobs_key, id)
  return record and not string.find(record, '^1\t%d+\t%d') and not string.find(record, '^1\t%d+\t\t%d')
end

-- The list holds entries of removed jobs, so positions are counted in jobs: walk, at most 10 pages of 500.
local function page_of_wait()
  local ids, seen, skipped, at = {}, {}, 0, 0
  local length = redis.call('LLEN', wait_key)
  local holes = tonumber(redis.call('HGET', meta_key, 'holes')) or 0
  if holes == 0 then at, skipped = start, start end
  while at < length and #ids < limit do
    local first, last = at, math.min(at + 499, length - 1)
    if newest then first, last = math.max(length - at - 500, 0), length - 1 - at end
    local entries = redis.call('LRANGE', wait_key, first, last)
    for index = 1, #entries do
      local id = entries[newest and #entries + 1 - index or index]
      if #ids < limit and not seen[id] and (holes == 0 or waits(id)) then
        seen[id] = true
        if skipped < start then skipped = skipped + 1 else ids[#ids + 1] = id end
      end
    end
    at = at + 500
  end
  return ids
end

-- Jobs with a retention rule of their own stand above PINNED: the two ranges are merged by time.
local function page_of_finished(key)
  local verb = newest and 'ZREVRANGE' or 'ZRANGE'
  if redis.call('ZCOUNT', key, PINNED, '+inf') == 0 then return redis.call(verb, key, start, start + limit - 1) end
  local need = start + limit
  local function read(low, high)
    if newest then return redis.call('ZREVRANGEBYSCORE', key, high, low, 'WITHSCORES', 'LIMIT', 0, need) end
    return redis.call('ZRANGEBYSCORE', key, low, high, 'WITHSCORES', 'LIMIT', 0, need)
  end
  local plain, pinned, ids, i, j = read('-inf', '(' .. PINNED), read(PINNED, '+inf'), {}, 1, 1
  for position = 1, need do
    local a, b = tonumber(plain[i + 1]), tonumber(pinned[j + 1])
    if not a and not b then break end
    b = b and b - PINNED
    local first = not b or (a and ((newest and a >= b) or (not newest and a <= b)))
    local id
    if first then id, i = plain[i], i + 2 else id, j = pinned[j], j + 2 end
    if position > start then ids[#ids + 1] = id end
  end
  return ids
end

if state == 'active' then
  -- One member of the set is no job: its score is endless.
  if newest then return {'OK', redis.call('ZREVRANGEBYSCORE', KEYS[7], '(+inf', '-inf', 'LIMIT', start, limit)} end
  return {'OK', redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', '(+inf', 'LIMIT', start, limit)}
end
if state == 'waiting' then return {'OK', page_of_wait()} end
if state == 'completed' or state == 'failed' then return {'OK', page_of_finished(sets[state])} end
return {'OK', redis.call(newest and 'ZREVRANGE' or 'ZRANGE', sets[state], start, start + limit - 1)}
