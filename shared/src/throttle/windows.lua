-- Sliding windows. Several askings, one after another; the limits of each are judged together: all are
-- counted, or none. The same arithmetic as `sliding.rs`, where it is explained.
--
-- KEYS  for each limit of each asking its row, a list: what is gone, then its parts, oldest first. Each is 'LAST SUM':
--       when the last use of the part was, in ms; uses of this and all parts before it. Of what is gone
--       only the SUM counts. A key may be there twice.
-- ARGV  for each asking: now, in ms (0 = by this server's clock, as always but in tests); how many
--       limits; for each of them: limit, window in ms, cost (0 = only looks), most uses in a part
-- Returns for each key, one after another: exceeded (0 or 1), remaining, ms until the oldest part
--       leaves, ms until the cost would pass

local time = redis.call('TIME')
local here = time[1] * 1000 + math.floor(time[2] / 1000)
-- Of the asking that is judged.
local now

local function part(key, index)
  local value = redis.call('LINDEX', key, index)
  if not value then return nil, 0 end
  local last, sum = string.match(value, '^(%d+) (%d+)$')
  return tonumber(last), tonumber(sum)
end

local function text(sum)
  return string.format('%.0f %.0f', now, sum)
end

-- How many elements the row has, once what has left the window is gone.
local function tidy(key, window)
  local length = redis.call('LLEN', key)
  -- What was counted at a time that is still to come (the clock was set back) was now, at the latest.
  local last, sum = part(key, -1)
  if length > 1 and last > now then
    while length > 1 and part(key, -1) > now do
      redis.call('RPOP', key)
      length = length - 1
    end
    redis.call('RPUSH', key, text(sum))
    length = length + 1
  end
  while length > 1 and part(key, 1) + window < now do
    redis.call('LPOP', key)
    length = length - 1
  end
  return length
end

local function used(key)
  local _, gone = part(key, 0)
  local _, all = part(key, -1)
  return all - gone
end

-- The oldest part with whose end the sum that must leave has left; nil = even with all it has not.
local function leaves(key, length, sum)
  local low, high = 1, length
  while low < high do
    local middle = math.floor((low + high) / 2)
    local _, reached = part(key, middle)
    if reached >= sum then high = middle else low = middle + 1 end
  end
  if low < length then return low end
end

local function count(key, cost, most)
  local length = redis.call('LLEN', key)
  if length == 0 then
    redis.call('RPUSH', key, '0 0')
    length = 1
  end
  local last, sum = part(key, -1)
  if length > 1 then
    local _, before = part(key, -2)
    if last == now or sum - before + cost <= most then
      redis.call('LSET', key, -1, text(sum + cost))
      return
    end
  end
  redis.call('RPUSH', key, text(sum + cost))
end

-- Judges one asking: its keys, and where the arguments of the first of them stand.
local function judge(keys, first, told)
  local limits, asked, lengths, refused, any = {}, {}, {}, {}, false
  for i, key in ipairs(keys) do
    local at = first + (i - 1) * 4
    local limit = {
      most = tonumber(ARGV[at]), window = tonumber(ARGV[at + 1]),
      cost = tonumber(ARGV[at + 2]), part = tonumber(ARGV[at + 3]),
    }
    limits[i] = limit
    lengths[i] = tidy(key, limit.window)
    -- With what the same asking wants of the same row before.
    limit.before = asked[key] or 0
    asked[key] = limit.before + limit.cost
    refused[i] = used(key) + asked[key] > limit.most
    any = any or refused[i]
  end

  if not any then
    for i, key in ipairs(keys) do
      local limit = limits[i]
      if limit.cost > 0 then
        count(key, limit.cost, limit.part)
        redis.call('PEXPIRE', key, limit.window + 1000)
      end
    end
  end

  for i, key in ipairs(keys) do
    local limit = limits[i]
    local exceeded, reset, retry = 0, 0, 0
    local oldest = part(key, 1)
    if oldest then reset = oldest + limit.window + 1 - now end
    if refused[i] then
      local _, all = part(key, -1)
      local index = leaves(key, lengths[i], all + limit.before + limit.cost - limit.most)
      exceeded, retry = 1, limit.window
      if index then retry = part(key, index) + limit.window + 1 - now end
    end
    table.insert(told, exceeded)
    table.insert(told, math.max(0, limit.most - used(key)))
    table.insert(told, reset)
    table.insert(told, retry)
  end
end

local told, key, at = {}, 1, 1
while at <= #ARGV do
  now = tonumber(ARGV[at])
  if now == 0 then now = here end
  local keys = {}
  for _ = 1, tonumber(ARGV[at + 1]) do
    table.insert(keys, KEYS[key])
    key = key + 1
  end
  judge(keys, at + 2, told)
  at = at + 2 + 4 * #keys
end
return told
