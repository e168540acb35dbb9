#!lua flags=no-writes
-- Lists the ids of one state, a page of them. Holes in `wait` are passed over.
-- KEYS: meta jobs runs wait prioritized delayed leases waiting_children completed failed
-- ARGV: state (a column's word), start, limit (at most 500), newest first ('1'), cursor ('' to begin)
-- Reply: OK, ids, cursor to go on with where there are fewer than asked for ('' there are no more) | LAYOUT
-- Events: none
local meta_key, jobs_key, runs_key, wait_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: layout
local PINNED = 1125899906842624
local sets = {prioritized = KEYS[5], delayed = KEYS[6], active = KEYS[7], waiting_children = KEYS[8], completed = KEYS[9],
  failed = KEYS[10]}
local state, start, limit, newest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

-- The list holds entries of removed jobs, so positions are counted in jobs: walk, at most 2,000 entries a call.
local function page_of_wait(at, skipped)
  local ids, seen, last_at = {}, {}, at + 2000
  local length = redis.call('LLEN', wait_key)
  local holes = tonumber(redis.call('HGET', meta_key, 'holes')) or 0
  if holes == 0 and at == 0 then at, skipped, last_at = start, start, start + 2000 end
  while at < length and at < last_at and #ids < limit do
    local first, last = at, math.min(at + 499, length - 1)
    if newest then first, last = math.max(length - at - 500, 0), length - 1 - at end
    local entries = redis.call('LRANGE', wait_key, first, last)
    local records, runs = {}, {}
    if holes > 0 then
      records, runs = redis.call('HMGET', jobs_key, unpack(entries)), redis.call('HMGET', runs_key, unpack(entries))
    end
    local looked = #entries
    for index = 1, #entries do
      local at_index = newest and #entries + 1 - index or index
      local id, record, run = entries[at_index], records[at_index], runs[at_index]
      local waits = holes == 0 or run and string.sub(run, 1, 8) == 'waiting '
        or not run and record and not string.find(record, '^1\t%d+\t%d') and not string.find(record, '^1\t%d+\t\t%d')
      if not seen[id] and waits then
        if #ids == limit then
          looked = index - 1
          break
        end
        seen[id] = true
        if skipped < start then skipped = skipped + 1 else ids[#ids + 1] = id end
      end
    end
    at = at + looked
  end
  return ids, at < length and string.format('%.0f %.0f', at, skipped) or ''
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
  if newest then return {'OK', redis.call('ZREVRANGEBYSCORE', KEYS[7], '(+inf', '-inf', 'LIMIT', start, limit), ''} end
  return {'OK', redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', '(+inf', 'LIMIT', start, limit), ''}
end
if state == 'waiting' then
  local at, skipped = string.match(ARGV[5], '^(%d+) (%d+)$')
  return {'OK', page_of_wait(tonumber(at) or 0, tonumber(skipped) or 0)}
end
if state == 'completed' or state == 'failed' then return {'OK', page_of_finished(sets[state]), ''} end
return {'OK', redis.call(newest and 'ZREVRANGE' or 'ZRANGE', sets[state], start, start + limit - 1), ''}
