-- Authoritative totals per job name, written by the script that makes the transition. After 100 names: __other__.
-- Needs: meta_key, totals_key. count() collects, save_totals() writes once per call.
local NAMES = 100
local totals, known = {}, {}
local function count(kind, name, n)
  local field = kind .. ' ' .. name
  local entry = totals[field]
  if entry then entry[3] = entry[3] + n else totals[field] = {kind, name, n} end
end

local function total_name(kind, name)
  if known[name] then return known[name] end
  local listed = redis.call('HEXISTS', totals_key, 'added ' .. name) == 1
  if not listed and kind == 'added' then
    listed = (tonumber(redis.call('HGET', meta_key, 'names')) or 0) < NAMES
    if listed then redis.call('HINCRBY', meta_key, 'names', 1) end
  end
  known[name] = listed and name or '__other__'
  return known[name]
end

local function save_totals()
  for _, entry in pairs(totals) do
    redis.call('HINCRBY', totals_key, entry[1] .. ' ' .. total_name(entry[1], entry[2]), entry[3])
  end
end
