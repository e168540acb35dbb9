-- The text in `runs`: state token finished ready started starts fails stalls releases place worker
-- (times in ms, 0 or - for none). Absent = waiting, never claimed. `place` is the score in `prioritized`.
-- read_run of a damaged text is nil.
local RUN = '^([%l_]+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ([%d-]+) ([%w._:@-]+)$'
local function read_run(text)
  local run = {}
  run.state, run.token, run.finished, run.ready, run.started, run.starts, run.fails, run.stalls, run.releases,
    run.place, run.worker = string.match(text, RUN)
  if not run.state or not (run.place == '-' or tonumber(run.place)) then return nil end
  -- Lua writes a number of 15 digits as no whole one, and readers take no time that late: it would spoil the events beside it.
  for _, field in ipairs({'finished', 'ready', 'started'}) do
    if #run[field] > 14 then return nil end
  end
  for _, field in ipairs({'starts', 'fails', 'stalls', 'releases'}) do
    if #run[field] > 12 then return nil end
  end
  return run
end

local function write_run(run)
  return table.concat({run.state, run.token, run.finished, run.ready, run.started, run.starts, run.fails, run.stalls,
    run.releases, run.place, run.worker}, ' ')
end
