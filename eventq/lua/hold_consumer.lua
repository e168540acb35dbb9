#!lua flags=allow-oom
-- Takes or keeps a durable reader's name, and saves how far it has read. One process holds a name; another with the same
-- name stands by until the hold ends. A save by a process that lost the name is refused and changes nothing.
-- Stored text: holder, hold ends ms, saved ms, epoch, entry id, seq, then the reader's own state.
-- KEYS: meta calls timers consumers
-- ARGV: writer, number, name, holder, hold ms (0 gives the name up), position ('' none to save: epoch entry-id seq), state
-- Reply: OK, 'held' or 'taken', position, state ('' to a save: its reader knows it), epoch of the queue, seq of its last event
--        | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, consumers_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: clock
-- include: call
local name, holder, hold = ARGV[3], ARGV[4], tonumber(ARGV[5])
-- As readers say it: one word.
local epoch = string.gsub(redis.call('HGET', meta_key, 'epoch') or '', '%s', '_')
local current, ends, saved, position, state = '', '0', '0', '- 0-0 0', ''
local text = redis.call('HGET', consumers_key, name)
if text then
  current, ends, saved, position, state = string.match(text, '^(%S+) (%d+) (%d+) (%S+ %d+%-%d+ %d+) (.*)$')
  -- One that is damaged begins anew: better that events come twice than not at all.
  if not current then current, ends, saved, position, state = '', '0', '0', '- 0-0 0', '' end
end
-- Whoever had the name meanwhile knows better, even if nobody has it now: a save by a former holder changes nothing.
if current ~= holder and (tonumber(ends) > now or text and ARGV[6] ~= '') then
  return {'OK', 'taken', position, state, epoch, seq}
end
if ARGV[6] ~= '' then position, saved, state = ARGV[6], now, ARGV[7] end
redis.call('HSET', consumers_key, name, table.concat({holder, hold > 0 and now + hold or 0, saved, position, state}, ' '))
if meta[1] then
  redis.call('PERSIST', consumers_key) -- it may be what an obliterated queue left behind
  if not replayed then close_call('') end
else
  -- There is no queue, or no more: a reader must not bring it to life, and what it says goes some day.
  redis.call('PEXPIRE', consumers_key, CALL_KEPT_MS)
end
return {'OK', 'held', position, ARGV[6] == '' and state or '', epoch, seq}
