-- The text in `runs`: state token finished ready started starts fails stalls releases place worker
-- (times in ms, 0 or - for none). Absent = waiting, never claimed. `place` is the score in `prioritized`.
-- read_run of a damaged text is nil.
local RUN = '^(%S+) (%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (.*)$'
local function read_run(text)
  local run = {}
  run.state, run.token, run.finished, run.ready, run.started, run.starts, run.fails, run.stalls, run.releases,
    run.place, run.worker = string.match(text, RUN)
  return run.state and run
end

local function write_run(run)
  return table.concat({run.state, run.token, run.finished, run.ready, run.started, run.starts, run.fails, run.stalls,
    run.releases, run.place, run.worker}, ' ')
end
