-- Nobody swept for half a lease: the server was paused or restarted, its clock was set forward, or nobody was awake. Live workers
-- get two thirds of a lease to come back (what they have when they renew in time) before their jobs are taken, so nothing runs
-- twice in mass; leases that would end before that, too. A lease longer than the sweeper's own gets what it had left at the last
-- sweep. After one late sweep the next gives only to what ended by now: what it was given last time must come to an end.
-- A shorter time than half of the sweeper's lease may be longer than another's: leases that ended in it, or would
-- end within as much, have left what they had left at the last sweep.
-- Or the clock was set back by more than a lease: what was not renewed since keeps what it had left, or it would wait that much longer.
-- Needs: now, lease, swept_at, gap, is_short, late, leases_key.
local grant = now + math.floor(lease * 2 / 3)
local first, last = '-inf', swept_at > 0 and late == 0 and '(' .. grant or now
if gap < 0 then first, last = '(' .. swept_at, '(inf' end
if is_short then first, last = '(' .. swept_at, '(' .. now + gap end
local scored = redis.call('ZRANGEBYSCORE', leases_key, first, last, 'WITHSCORES')
for index = 1, #scored, 2 do
  local ends = swept_at > 0 and scored[index + 1] + gap or grant
  if gap > 0 and not is_short and ends <= now + lease * 4 / 3 then ends = grant end
  redis.call('ZADD', leases_key, 'XX', string.format('%.0f', ends), scored[index])
end
