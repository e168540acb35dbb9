-- One outcome of settle that is a failed attempt: another one (retry), or the end (failed, exhausted).
local starts, fails, stalls, releases, place, by = match(rest, COUNTERS)
if not tonumber(place) then place = '-' end
local counters = starts .. ' ' .. (fails + 1) .. ' ' .. stalls .. ' ' .. releases .. ' ' .. place .. ' ' .. by
local kinds = word == 'retry' and {'retrying'} or word == 'exhausted' and {'failed', 'exhausted'} or {'failed'}
for _, kind in ipairs(kinds) do
  totals[kind] = totals[kind] or {}
  totals[kind][name] = (totals[kind][name] or 0) + 1
end
if word == 'retry' then
  local due = now + tonumber(extra)
  local state = due > now and 'delayed' or place ~= '-' and 'prioritized' or 'waiting'
  retrying[#retrying + 1] = event .. ',"state":"' .. state .. '","due_ms":' .. due .. '}'
  retries[#retries + 1] = {id, state, due, place}
  run = state .. ' - 0 ' .. due .. ' ' .. started .. ' ' .. counters
else
  local total = ''
  if starts ~= '1' then
    -- include: duration
  end
  failed[#failed + 1] = event .. total .. '}'
  badly.ids[#badly.ids + 1], badly.rules[#badly.rules + 1] = id, extra
  run = 'failed - ' .. now_text .. ' ' .. ready .. ' ' .. started .. ' ' .. counters
end
