#!lua
-- Handles due slots of one schedule, if it is still as it was read: tells which were missed, adds the job of one (or of none),
-- and goes on to the next slot. A scheduler that is late with an old slot changes nothing, whatever became of its job.
-- KEYS: meta calls timers jobs data schedules slots wait prioritized totals events marker
-- ARGV: writer, number, id, revision and next slot as read, standing (the header after the revision), missed slots, the first,
--       the last, the policy, slot to run ('' none), then its job: name, options (priority TAB flags), body (spec LF data),
--       data kept apart ('' none), trace fragment
-- Reply: OK, fired | exists (the slot's job is stored already) | passed (nothing to run) | conflict | STALE | LAYOUT
-- Events: schedule_missed, added
local meta_key, calls_key, timers_key, jobs_key, data_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local schedules_key, slots_key, wait_key, prioritized_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local totals_key, events_key, marker_key = KEYS[10], KEYS[11], KEYS[12]
-- include: clock
-- include: call
-- include: emit
if replayed then return {'OK', replayed} end
local id, slot, name, options, trace, verdict = ARGV[3], ARGV[11], ARGV[12], ARGV[13], ARGV[16], 'conflict'
-- include: schedule
if revision == ARGV[4] and next_slot == ARGV[5] then
  local job_id = 'schedule:' .. id .. ':' .. slot
  local priority, flags = string.match(options, '^(%d*)\t(%a*)$')
  verdict = slot == '' and 'passed' or redis.call('HEXISTS', jobs_key, job_id) == 1 and 'exists' or 'fired'
  if ARGV[7] ~= '0' then
    emit('schedule_missed', {'{"schedule_id":"' .. id .. '","count":' .. ARGV[7] .. ',"first_ms":' .. ARGV[8]
      .. ',"last_ms":' .. ARGV[9] .. ',"policy":"' .. ARGV[10] .. '"}'})
  end
  if verdict == 'fired' then
    emit('added', {'{"job_id":"' .. job_id .. '","name":"' .. name .. '","state":"'
      .. (priority == '' and 'waiting"' or 'prioritized","priority":' .. priority)
      .. ',"schedule":"' .. id .. '","slot_ms":' .. slot .. (trace ~= '' and ',' .. trace or '') .. '}'})
  end
  store_schedule(revision, ARGV[6], string.match(record, '\n(.*)$'))
  if verdict == 'fired' then
    redis.call('HSET', jobs_key, job_id, '1\t' .. now_text .. '\t\t' .. options .. '\t' .. name .. '\t' .. trace .. '\n' .. ARGV[14])
    if ARGV[15] ~= '' then redis.call('HSET', data_key, job_id, ARGV[15]) end
    -- include: line
    local place = priority == '' and '-' or new_place(priority)
    line_up(job_id, place, string.find(flags, 'l', 1, true) and 'head' or 'tail')
    local totals = {added = {[name] = 1}}
    -- include: totals
    -- include: wake
    wake(1, true)
  end
end
close_call(verdict)
return {'OK', verdict}
