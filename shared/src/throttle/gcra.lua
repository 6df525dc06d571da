-- GCRA: takes up to so many cells from a bucket, and counts them in a day.
--
-- KEYS  1  the bucket's theoretical arrival time (TAT), in ms
--       2  cells of the day; only with a day limit
-- ARGV  1  now, in ms
--       2  emission interval, in ms
--       3  burst, in ms
--       4  cells wanted
--       5  day limit, 0 = none
--       6  ms that the day's count lives
-- Returns {verdict, granted, a, b, c}
--       0  pass: cells granted; cells left, left of the day (-1 = no limit), ms until full
--       1  too many: 0; ms until one would pass, ms until full, 0
--       2  day used up: 0; 0, 0, 0
local now, emission, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
-- A thousandth of a cell of grace: TAT is kept to the microsecond only.
local fit = math.floor((now + burst - tat) / emission + 0.001)
if fit < 1 then
  return {1, 0, math.max(1, math.ceil(tat + emission - burst - now)), math.ceil(tat - now), 0}
end
local cells = math.min(fit, tonumber(ARGV[4]))
local left = -1
local limit = tonumber(ARGV[5])
if limit > 0 then
  local used = tonumber(redis.call('GET', KEYS[2]) or 0)
  if used >= limit then return {2, 0, 0, 0, 0} end
  cells = math.min(cells, limit - used)
  redis.call('SET', KEYS[2], used + cells, 'PX', ARGV[6])
  left = limit - used - cells
end
tat = tat + cells * emission
redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil(tat - now) + 1)
return {0, cells, fit - cells, left, math.ceil(tat - now)}
