-- Reserves turns in a line, or says that somebody has come for one; by this server's clock.
--
-- KEYS  1  the line, 'TAIL KEPT' in ms
-- ARGV  1  turns wanted, 0 = one was kept
--       2  interval, in ms
--       3  ms until the first turn may be
--       4  ms until the tail, as the process knows it
--       5  ms since the last kept turn, as the process knows it
--       6  ms after which a line that nobody has come for is nobody's
--       7  ms until the last turn may be
-- Returns {ms until the first turn, ms until the tail, ms since the last kept turn}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local turns, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local tail, kept = now + tonumber(ARGV[4]), now - tonumber(ARGV[5])
local value = redis.call('GET', KEYS[1])
if value then
  local t, k = string.match(value, '^(%S+) (%S+)$')
  tail, kept = math.max(tail, tonumber(t)), math.max(kept, tonumber(k))
end
if turns == 0 then
  kept = now
elseif tail <= now or now - kept > tonumber(ARGV[6]) then
  tail, kept = now, now
end
local first = tail
if turns > 0 then
  first = math.min(math.max(tail, now + tonumber(ARGV[3])), now + tonumber(ARGV[7]))
  tail = first + turns * interval
end
if tail > now then
  local lives = math.ceil(tail - now) + tonumber(ARGV[6])
  redis.call('SET', KEYS[1], string.format('%.3f %.0f', tail, kept), 'PX', lives)
end
return {string.format('%.3f', first - now), string.format('%.3f', tail - now), now - kept}
