#!lua flags=no-writes
-- Lists ids of finished jobs that ended no later than some time, the oldest first; those with an age rule of their own, which
-- stand above PINNED, after the others.
-- KEYS: meta completed failed
-- ARGV: state (completed or failed), until (ms since the epoch, '' now), start, limit (at most 500)
-- Reply: OK, until, ids | LAYOUT
-- Events: none
local meta_key = KEYS[1]
-- include: clock
-- include: layout
local PINNED = 1125899906842624
local key, start, limit = ARGV[1] == 'completed' and KEYS[2] or KEYS[3], tonumber(ARGV[3]), tonumber(ARGV[4])
local till = ARGV[2] ~= '' and ARGV[2] or now_text
local ids = redis.call('ZRANGEBYSCORE', key, '-inf', till, 'LIMIT', start, limit)
if #ids == 0 then
  start = math.max(0, start - redis.call('ZCOUNT', key, '-inf', till))
  ids = redis.call('ZRANGEBYSCORE', key, PINNED, PINNED + till, 'LIMIT', start, limit)
end
return {'OK', till, ids}
