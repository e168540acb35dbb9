-- Where a job stands, read from its record and run; nil when a token is given that is not the one of its run any more.
-- Needs: runs_key.
local function is_held(id, token, record)
  local run = redis.call('HGET', runs_key, id)
  local state, current = string.match(run or '', '^([%l_]+) (%S+) ')
  if token ~= '' and (state ~= 'active' or current ~= token) then return nil end
  if state then return state, run end
  local due, priority = string.match(record or '', '^1\t%d+\t(%d*)\t(%d*)')
  return due and due ~= '' and 'delayed' or priority and priority ~= '' and 'prioritized' or 'waiting', run
end
