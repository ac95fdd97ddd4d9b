-- Counts what one replica asks about several limits, on Redis' own clock.
--
-- KEYS[1]: the replicas, by until when each is taken to be there. KEYS[2..]: a limit each: `whole_at`, when
-- its budget is whole again (GCRA), and for each replica what it holds of it: "held spent until".
-- ARGV: this replica, how long it counts as there, how long what it holds is kept for it; then for each
-- limit eight: who holds, interval, burst, spent ever, spent as of the last answer, left, ask, and the
-- debt, with a `!` before it if it must be believed.
-- Answers the number of replicas, and for each limit what is granted, the wait for more, how soon others may
-- have given some back, and the rest.
-- Times are microseconds. They begin in 2026, so that fractions of them are exact enough.

local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local there, kept = tonumber(ARGV[2]), tonumber(ARGV[3])

-- What lies too far ahead was written before a clock was set back.
redis.call('ZADD', KEYS[1], now + there, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now + there), '+inf')
redis.call('PEXPIRE', KEYS[1], 3600000)
local answer = { redis.call('ZCARD', KEYS[1]) }

for nth = 2, #KEYS do
  local key, arg = KEYS[nth], 4 + (nth - 2) * 8
  local holder, debt = ARGV[arg], ARGV[arg + 7]
  local interval, burst = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
  local spent, known = tonumber(ARGV[arg + 3]), tonumber(ARGV[arg + 4])
  local left, ask = tonumber(ARGV[arg + 5]), tonumber(ARGV[arg + 6])
  local whole_at, mine, back, soonest = nil, nil, 0, math.huge

  local fields = redis.call('HGETALL', key)
  for at = 1, #fields, 2 do
    if fields[at] == 'whole_at' then
      whole_at = tonumber(fields[at + 1])
    else
      local held, then_spent, till = string.match(fields[at + 1], '^(%S+) (%S+) (%S+)$')
      till = tonumber(till)
      if till <= now or till > now + kept then
        back = back + tonumber(held)
        redis.call('HDEL', key, fields[at])
      elseif fields[at] == holder then
        mine = { tonumber(held), tonumber(then_spent) }
      elseif tonumber(held) > 0 then
        soonest = math.min(soonest, till)
      end
    end
  end

  -- What it was granted and neither spent nor has left goes back, also where it never got the answer.
  -- What it spent of a lease that was taken from it is charged.
  if mine then
    back = back + mine[1] - (spent - mine[2]) - left
  else
    back = back - (left + spent - known)
  end
  local believed = string.sub(debt, 1, 1) == '!'
  if believed then debt = string.sub(debt, 2) end
  local full = burst * interval
  -- What was spent and is told late is charged above the burst, too: it was given back meanwhile, and others
  -- have it. No more than all can hold ahead, or a clock that was set back would refuse for long.
  local late = math.max(full / 4, answer[1] * interval)
  if believed or not whole_at then
    whole_at = math.max(whole_at or now, now + tonumber(debt) * interval)
    -- A debt has all that in it.
    late = 0
  end
  if back < 0 then whole_at = math.max(whole_at, now) end
  whole_at = math.min(math.max(whole_at - back * interval, now), now + full + late)

  local free = math.max(math.floor((full - (whole_at - now)) / interval + 0.000001), 0)
  local granted = math.min(ask, free)
  whole_at = whole_at + granted * interval
  redis.call('HSET', key, 'whole_at', string.format('%.3f', whole_at),
    holder, string.format('%.0f %.0f %.0f', left + granted, spent, now + kept))
  -- By then no replica remembers anything of it either.
  local forgotten = math.min(full / 1000, 3600000) + 5000
  redis.call('PEXPIRE', key, string.format('%.0f', (whole_at - now) / 1000 + forgotten))

  answer[#answer + 1] = granted
  local wait = math.max(whole_at + interval - now - full, 0)
  answer[#answer + 1] = math.ceil(wait)
  answer[#answer + 1] = math.ceil(math.min(wait, soonest - now))
  answer[#answer + 1] = free - granted
end
return answer
