-- Authoritative totals per job name, written by the script that makes the transition. After 100 names: __other__.
-- Needs: meta_key, totals_key. count() collects, save_totals() reads and writes once per call.
local NAMES = 100
local totals = {}
local function count(kind, name, n)
  local names = totals[kind]
  if not names then
    names = {}
    totals[kind] = names
  end
  names[name] = (names[name] or 0) + n
end

-- The names of this call that stand for themselves; a new one is listed by the script that adds it.
local function listed_names()
  local names, fields, listed = {}, {}, {}
  for _, counts in pairs(totals) do
    for name in pairs(counts) do
      if listed[name] == nil then
        listed[name] = false
        names[#names + 1] = name
        fields[#fields + 1] = 'added ' .. name
      end
    end
  end
  if #names == 0 then return nil end
  local room
  for index, value in ipairs(redis.call('HMGET', totals_key, unpack(fields))) do
    local name = names[index]
    listed[name] = value and true
    if not value and totals.added and totals.added[name] then
      room = room or NAMES - (tonumber(redis.call('HGET', meta_key, 'names')) or 0)
      if room > 0 then
        room, listed[name] = room - 1, true
        redis.call('HINCRBY', meta_key, 'names', 1)
      end
    end
  end
  return listed
end

local function save_totals()
  local listed = listed_names()
  if not listed then return end
  for kind, counts in pairs(totals) do
    for name, n in pairs(counts) do
      redis.call('HINCRBY', totals_key, kind .. ' ' .. (listed[name] and name or '__other__'), n)
    end
  end
end
