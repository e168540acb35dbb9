#!lua flags=allow-oom
-- Trims the event stream by number of events, bytes and age, but not past a live durable reader until the hard cap.
-- KEYS: meta calls timers consumers events
-- ARGV: writer, number, most events, most bytes, most age ms, hard cap bytes, a reader is live for ms, entries per call
-- Reply: OK, entries trimmed, more to do (0 or 1) | STALE | LAYOUT
-- Events: none
local meta_key, calls_key, timers_key, consumers_key, events_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
-- include: clock
-- include: call
if replayed then return {'OK', tonumber(replayed), 0} end
local most_events, most_bytes, most_age = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local hard_bytes, live, limit = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

-- Where the slowest live reader stands: the seq up to which everything is handled. One that stands in an earlier epoch has
-- handled nothing of this one.
local slowest, epoch = math.huge, redis.call('HGET', meta_key, 'epoch')
for _, text in ipairs(redis.call('HVALS', consumers_key)) do
  local saved, stands, handled = string.match(text, '^%S+ %d+ (%d+) (%S+) %S+ (%d+)')
  if saved and tonumber(saved) + live > now then slowest = math.min(slowest, stands == epoch and tonumber(handled) or 0) end
end

local function field(entry, name)
  for index = 1, #entry[2], 2 do
    if entry[2][index] == name then return tonumber(entry[2][index + 1]) end
  end
end

local cut, trimmed = nil, 0
local entries = redis.call('XRANGE', events_key, '-', '+', 'COUNT', limit)
for index, entry in ipairs(entries) do
  local first, n, bytes, ms = field(entry, 'seq'), field(entry, 'n'), field(entry, 'bytes'), field(entry, 'ms')
  -- The end of an earlier epoch: its numbers are not those of this one. It stays for its time, or goes with what follows.
  local stays = entry[2][2] == 'obliterated' and ms and ms + most_age >= now
  if entry[2][2] ~= 'obliterated' and first and n and bytes and ms then
    local last_seq, retained = first + n - 1, event_bytes - bytes
    local over = seq - last_seq >= most_events or retained >= most_bytes or ms + most_age < now
    if not over or (last_seq > slowest and retained < hard_bytes) then break end
  end -- else it is none of ours, and goes with what is around it
  if not stays then cut, trimmed = entry[1], index end
end
if cut then
  local stream_ms, counter = string.match(cut, '^(%d+)-(%d+)$')
  redis.call('XTRIM', events_key, 'MINID', '=', stream_ms .. '-' .. string.format('%.0f', counter + 1))
end
close_call(tostring(trimmed))
return {'OK', trimmed, trimmed == limit and 1 or 0}
