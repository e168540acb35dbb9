-- Collects totals, for include totals to write. The busiest script fills the tables itself.
local totals = {}
local function count(kind, name, n)
  totals[kind] = totals[kind] or {}
  totals[kind][name] = (totals[kind][name] or 0) + n
end
