-- GCRA: takes up to so many cells from each of some buckets, one after another, and counts them in a day.
--
-- KEYS  for each bucket
--          its theoretical arrival time (TAT), in ms
--          cells of the day; only with a day limit
-- ARGV  for each bucket six
--       1  now, in ms
--       2  emission interval, in ms
--       3  burst, in ms
--       4  cells wanted
--       5  day limit, 0 = none
--       6  ms that the day's count lives
-- Returns for each bucket, one after another, verdict, granted, a, b, c
--       0  pass: cells granted; cells left, left of the day (-1 = no limit), ms until full
--       1  too many: 0; ms until one would pass, ms until full, 0
--       2  day used up: 0; 0, 0, 0
local call, floor, ceil, max, min = redis.call, math.floor, math.ceil, math.max, math.min

local function take(key, day, now, emission, burst, wanted, limit, lives)
  local tat = max((call('GET', key) or now) + 0, now)
  -- A thousandth of a cell of grace: TAT is kept to the microsecond only.
  local fit = floor((now + burst - tat) / emission + 0.001)
  if fit < 1 then
    return 1, 0, max(1, ceil(tat + emission - burst - now)), ceil(tat - now), 0
  end
  local cells = min(fit, wanted)
  local left = -1
  if day then
    local used = (call('GET', day) or 0) + 0
    if used >= limit then return 2, 0, 0, 0, 0 end
    cells = min(cells, limit - used)
    call('SET', day, used + cells, 'PX', lives)
    left = limit - used - cells
  end
  tat = tat + cells * emission
  call('SET', key, string.format('%.3f', tat), 'PX', ceil(tat - now) + 1)
  return 0, cells, fit - cells, left, ceil(tat - now)
end

local told, bucket, n = {}, 1, 0
for at = 1, #ARGV, 6 do
  local key, limit, day = KEYS[bucket], ARGV[at + 4] + 0, nil
  bucket = bucket + 1
  if limit > 0 then
    day = KEYS[bucket]
    bucket = bucket + 1
  end
  told[n + 1], told[n + 2], told[n + 3], told[n + 4], told[n + 5] = take(key, day,
    ARGV[at] + 0, ARGV[at + 1] + 0, ARGV[at + 2] + 0, ARGV[at + 3] + 0, limit, ARGV[at + 5])
  n = n + 5
end
return told
