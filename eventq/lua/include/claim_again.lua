-- One job of claim that ran before: its counters and its place in line are kept.
local was, starts_before, fails, rest
was, ready, starts_before, fails, rest = match(run, '^(%S+) %S+ %d+ (%d+) %d+ (%d+) (%d+) (%d+ %d+ %S+) .*$')
text = tokens .. size .. ' 0 ' .. ready .. ' ' .. now_text .. ' ' .. (starts_before + 1) .. ' ' .. fails .. ' ' .. rest .. tail
again = text .. '\n' .. data
attempt = '","attempt":' .. (fails + 1) .. ',"worker":"' .. worker
