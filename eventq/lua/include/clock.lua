-- The only clock: Redis' TIME, read once per script. Integer milliseconds since the epoch; `now_text` is the same as text,
-- because turning numbers into text again and again is what a script spends its time on.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local now_text = string.format('%.0f', now)
