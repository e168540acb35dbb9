-- Reads a schedule as it stands: `record`, its `revision` and `next_slot` ('' where there is none). Whoever changes it says both
-- as they were when it made up its mind; if another one was quicker, nothing happens. Needs: id, schedules_key, slots_key.
local record = redis.call('HGET', schedules_key, id) or ''
local revision, next_slot = string.match(record, '^([^\t\n]*)\t([^\t\n]*)')
revision, next_slot = revision or '', next_slot or ''

-- Stores it: `standing` is the header after the revision, and begins with the next slot.
local function store_schedule(new_revision, standing, definition)
  local slot = string.match(standing, '^([^\t]*)')
  redis.call('HSET', schedules_key, id, new_revision .. '\t' .. standing .. '\n' .. definition)
  -- One that is paused or has ended stands behind all others.
  redis.call('ZADD', slots_key, slot == '-' and '+inf' or slot, id)
end
