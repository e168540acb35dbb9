-- One job of claim that ran before: its counters and its place in line are kept. One whose run cannot be read begins anew
-- here, and the worker gets it as it was, to fail it alone.
local was, starts_before, fails, rest
was, ready, starts_before, fails, rest = match(run, '^(%S+) %S+ %d+ (%d+) %d+ (%d+) (%d+) (%d+ %d+ [%d-]+) .*$')
if was and (#ready > 14 or #starts_before > 12 or #fails > 12) then was = nil end
if not was then ready, starts_before, fails, rest = now_text, 0, 0, '0 0 -' end
text = tokens .. size .. ' 0 ' .. ready .. ' ' .. now_text .. ' ' .. (starts_before + 1) .. ' ' .. fails .. ' ' .. rest .. tail
again = (was and text or run) .. '\n' .. data
attempt = '","attempt":' .. (fails + 1) .. ',"worker":"' .. worker
