-- Renews or gives up a process's part of a share, and tells of the newest rest.
--
-- KEYS  1  the share, a hash
-- ARGV  1  now, in ms
--       2  the process
--       3  slots that it holds, -1 = it leaves
--       4  slots of all together
--       5  ms that a part is left alone
--       6  number of the term
--       7  the rest that the process knows: AT, in ms, 0 = none
--       8  its REFUSALS
--       9  its UNTIL, in ms
--      10  ms that a rest is remembered
-- Returns {slots that the process should have, AT, REFUSALS, UNTIL}
local now, mine, held = tonumber(ARGV[1]), 'p:' .. ARGV[2], tonumber(ARGV[3])
local total, term = tonumber(ARGV[4]), tonumber(ARGV[6])
local at, refusals, until_ = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local others, before, taken = 0, 0, 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local field, value = fields[i], fields[i + 1]
  if field == 'rest' then
    local a, r, u = string.match(value, '^(%d+) (%d+) (%d+)$')
    if tonumber(a) > at then at, refusals, until_ = tonumber(a), tonumber(r), tonumber(u) end
  elseif field ~= mine then
    local slots, expires = string.match(value, '^(%d+) (%d+)$')
    if tonumber(expires) <= now then
      redis.call('HDEL', KEYS[1], field)
    else
      others, taken = others + 1, taken + tonumber(slots)
      if field < mine then before = before + 1 end
    end
  end
end
local slots = 0
if held < 0 then
  redis.call('HDEL', KEYS[1], mine)
else
  local processes = others + 1
  local fair = math.floor(total / processes)
  if (before + term) % processes < total % processes then fair = fair + 1 end
  slots = math.max(0, math.min(fair, total - taken))
  local value = string.format('%d %d', math.max(slots, held), now + tonumber(ARGV[5]))
  redis.call('HSET', KEYS[1], mine, value)
end
local lives = tonumber(ARGV[5])
if refusals > 0 then lives = tonumber(ARGV[10]) end
if at > 0 then redis.call('HSET', KEYS[1], 'rest', string.format('%d %d %d', at, refusals, until_)) end
redis.call('PEXPIRE', KEYS[1], lives)
return {slots, at, refusals, until_}
