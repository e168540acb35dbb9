#!lua flags=allow-oom
-- Says that a worker is alive and what it does, or (hold 0) that it is gone. How long its slots were in use is added to the
-- queue's own: `meta.busy_ms` grows for ever, whoever comes and goes.
-- Stored text: incarnation, ends ms, seen ms, busy ms so far, slots, busy slots, start of its oldest run (ms, 0 none), its
-- own clock (ms), what it is.
-- KEYS: meta calls timers workers
-- ARGV: writer, number, worker, incarnation, hold ms, busy ms so far, of that known to be counted, slots, busy slots, start of its
--       oldest run (ms, 0 none), its own clock (ms), what it is (JSON)
-- Reply: OK, busy ms counted | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, workers_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: clock
-- include: call
-- A record outlives its worker, so that one which was only cut off is not counted twice.
local KEPT_MS = 600000
if replayed then return {'OK', tonumber(replayed)} end
local name, incarnation, hold, busy = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local text = redis.call('HGET', workers_key, name)
local stands, counted = string.match(text or '', '^(%S+) %d+ %d+ (%d+) ')
counted = stands == incarnation and tonumber(counted) or tonumber(ARGV[7])
-- What a thread reads of a loop that goes on may be a little less than before.
if busy > counted then
  add_to(meta_key, 'busy_ms', busy - counted)
else
  busy = counted
end
if hold > 0 then
  redis.call('HSET', workers_key, name, table.concat({incarnation, string.format('%.0f', now + hold), now_text,
    string.format('%.0f', busy), ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]}, ' '))
  if not text then redis.call('ZADD', timers_key, now + hold + KEPT_MS, 'worker ' .. name) end
elseif stands == incarnation then
  redis.call('HDEL', workers_key, name)
  redis.call('ZREM', timers_key, 'worker ' .. name)
end
close_call(string.format('%.0f', busy))
return {'OK', busy}
