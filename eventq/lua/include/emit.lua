-- The only XADD. One entry carries up to 100 events (32 KiB) of one kind, numbered without gaps; close_call saves the number.
-- Needs: now_text, seq, event_bytes, events_key. `events` is a list of JSON objects.
local ENTRY_EVENTS, ENTRY_BYTES = 100, 32768
local function emit(kind, events)
  local count, start, size = #events, 1, 0
  for index = 1, count do
    size = size + #events[index] + 1
    if index == count or index - start + 1 == ENTRY_EVENTS or size + #events[index + 1] > ENTRY_BYTES then
      -- Redis' Lua reads every character of a string that it makes: the long one is made once.
      events[start] = '[' .. events[start]
      events[index] = events[index] .. ']'
      local text = table.concat(events, ',', start, index)
      local n = index - start + 1
      event_bytes = event_bytes + #text
      redis.call('XADD', events_key, '*', 'kind', kind, 'seq', seq + 1, 'n', n, 'ms', now_text,
        'bytes', event_bytes, 'events', text)
      if seq == 0 then redis.call('PERSIST', events_key) end -- it may be what an obliterated queue left behind
      seq, start, size = seq + n, index + 1, 0
    end
  end
end
