#!lua flags=no-writes
-- Says of each job whether it stands where it says, all at one moment, and whether the holes of the line are counted rightly.
-- KEYS: meta jobs data runs results progress logs wait prioritized delayed leases waiting_children completed failed
-- ARGV: ids (at most 500, may be none)
-- Reply: OK, per job a letter (see include standing), holes that meta says, holes there are | LAYOUT
-- Events: none
local meta_key, jobs_key, data_key, runs_key, results_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local progress_key, logs_key, wait_key, prioritized_key, delayed_key = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local leases_key, waiting_children_key, completed_key, failed_key = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
-- include: clock
-- include: layout
-- include: leases
-- include: runs
-- include: holes
local ids, letters, said_in_line = ARGV, {}, false
if #ids > 0 then
  -- include: standing
  for index = 1, #ids do letters[index] = look(index) end
end
local said, holes = count_holes()
return {'OK', table.concat(letters), said, holes}
