-- One outcome of settle that is none: its processor wants the job to run later. The start counts as a release.
local starts, fails, stalls, releases, place, by = match(rest, COUNTERS)
if not tonumber(place) then place = '-' end
local due = now + tonumber(extra)
totals.released = totals.released or {}
totals.released[name] = (totals.released[name] or 0) + 1
postponed[#postponed + 1] = event .. ',"state":"delayed","previous":"active","due_ms":' .. due .. '}'
retries[#retries + 1] = {id, 'delayed', due, place}
run = 'delayed - 0 ' .. due .. ' ' .. started .. ' ' .. starts .. ' ' .. fails .. ' ' .. stalls .. ' ' .. (releases + 1) .. ' '
  .. place .. ' ' .. by
