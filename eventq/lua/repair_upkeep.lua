#!lua flags=allow-oom
-- Sees to it that what should end some day does: records of calls and of workers without a timer get theirs, and durable readers
-- who have been away for long are forgotten. One who holds its name, or held or saved it in the last day, never is.
-- KEYS: meta calls timers workers consumers
-- ARGV: writer, number, what (calls, workers or consumers), readers are away for ms, count, then names
-- Reply: OK, per name a letter: t timer set, r reader removed, s not so any more | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, workers_key, consumers_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', replayed} end
local SILENT_MS, LIVE_MS = 600000, 86400000
local what, away, letters = ARGV[3], math.max(tonumber(ARGV[4]), LIVE_MS), {}

-- When a record ends: a day after the last call, ten minutes after a worker's hold. One that cannot be read: as of now.
local function ends_at(text)
  if what == 'calls' then return (tonumber(string.match(text, '^%d+ (%d+)')) or now) + CALL_KEPT_MS end
  return (tonumber(string.match(text, '^%S+ (%d+)')) or now) + SILENT_MS
end

for index = 1, tonumber(ARGV[5]) do
  local name, letter = ARGV[5 + index], 's'
  if what == 'consumers' then
    local held, saved = string.match(redis.call('HGET', consumers_key, name) or '', '^%S+ (%d+) (%d+) %S+ %S+ %d+')
    if held and math.max(tonumber(held), tonumber(saved)) + away <= now then
      redis.call('HDEL', consumers_key, name)
      letter = 'r'
    end
  else
    local text = redis.call('HGET', what == 'calls' and calls_key or workers_key, name)
    local timer = (what == 'calls' and 'call ' or 'worker ') .. name
    if text and not redis.call('ZSCORE', timers_key, timer) then
      redis.call('ZADD', timers_key, ends_at(text), timer)
      letter = 't'
    end
  end
  letters[index] = letter
end
local reply = table.concat(letters)
close_call(reply)
return {'OK', reply}
