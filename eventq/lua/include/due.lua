-- When the next delayed job is due: `due_in` ms from now, nil for none, 0 or less for now. Its score's fraction only
-- orders jobs of one ms. Needs: now, delayed_key.
local due_score = redis.call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')[2]
local due_in = due_score and math.floor(tonumber(due_score)) - now
