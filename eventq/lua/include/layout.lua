-- Refuses an unknown layout. Needs: meta_key.
local layout = redis.call('HGET', meta_key, 'layout')
if layout and layout ~= '1' then return {'LAYOUT', layout} end
