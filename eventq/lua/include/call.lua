-- Opens a numbered call. Every writer numbers its calls and has one in flight: the same number again gets the stored
-- reply (`replayed`), a lower one STALE, a higher one runs. An unknown layout changes nothing, nor does a key that holds another type:
-- it would break a script half-way, so the first call of a writer looks at all of them.
-- Needs: now, meta_key, calls_key, timers_key. ARGV[1] writer, ARGV[2] number.
local LAYOUT = '1'
local CALL_KEPT_MS = 86400000
local writer, number = ARGV[1], ARGV[2]
local meta = redis.call('HMGET', meta_key, 'layout', 'seq', 'event_bytes', 'paused', 'holes', 'aged_at')
if meta[1] and meta[1] ~= LAYOUT then return {'LAYOUT', meta[1]} end
local seq, event_bytes, paused = tonumber(meta[2]) or 0, tonumber(meta[3]) or 0, meta[4] == '1'
-- A number that cannot be one begins anew, else none would ever be one again.
if seq % 1 ~= 0 or seq < 0 or seq > 4503599627370496 then seq = 0 end
if event_bytes % 1 ~= 0 or event_bytes < 0 or event_bytes > 4503599627370496 then event_bytes = 0 end
local first_seq, aged = seq + 1, false
local call_record, replayed = redis.call('HGET', calls_key, writer), false
if not call_record then
  -- include: types
end
if call_record then
  local last, reply = string.match(call_record, '^(%d+) %d+ (.*)$')
  if not last then last = '0' end -- damaged: what it said is lost
  if tonumber(number) < tonumber(last) then return {'STALE', last} end
  if number == last then replayed = reply end
end

-- Adds to a number; one that somebody damaged begins anew, since an error here would leave half a transition.
local function add_to(key, field, n)
  local sum = redis.pcall('HINCRBY', key, field, n)
  if type(sum) == 'number' then return sum end
  redis.call('HSET', key, field, math.max(0, n))
  return math.max(0, n)
end

-- Stores the reply, so that a repeated call gets the same one, and where the events stand. The first call of a queue writes
-- its layout and epoch (the writer's random id and the time); the first call of a writer puts its record on the list of what expires.
local function close_call(reply)
  if not meta[1] then redis.call('HSET', meta_key, 'layout', LAYOUT, 'epoch', writer .. '-' .. now_text) end
  if aged then
    redis.call('HSET', meta_key, 'seq', seq, 'event_bytes', event_bytes, 'aged_at', now_text)
  elseif seq >= first_seq then
    redis.call('HSET', meta_key, 'seq', seq, 'event_bytes', event_bytes)
  end
  if not call_record then redis.call('ZADD', timers_key, now + CALL_KEPT_MS, 'call ' .. writer) end
  redis.call('HSET', calls_key, writer, number .. ' ' .. now_text .. ' ' .. reply)
end
