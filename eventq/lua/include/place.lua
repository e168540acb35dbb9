-- Where one new job of add_jobs goes that does not simply go to the end of the line: delayed, prioritized, or the head.
if place ~= '' then
  due = tonumber(string.sub(place, 2))
  if string.sub(place, 1, 1) == '+' then due = now + due end
  if due <= now then due = '' end
end
local priority, flags = string.match(options, '^(%d*)\t(%a*)$')
if due ~= '' then
  places[#places + 1] = {id, due}
  soonest = math.min(soonest or due, due)
  facts = '","state":"delayed","due_ms":' .. due
elseif priority ~= '' then
  places[#places + 1] = {id, false, tonumber(priority)}
  claimable = claimable + 1
  facts = '","state":"prioritized"'
elseif string.find(flags, 'l', 1, true) then
  lifo[#lifo + 1] = id
  claimable = claimable + 1
  facts = '","state":"waiting"'
else
  last = last + 1
  tail[last] = id
  facts = '","state":"waiting"'
end
if priority ~= '' then facts = facts .. ',"priority":' .. priority end
