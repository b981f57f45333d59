"""The steps of mailboxes and leases; `redis_scripts` names the keys. Accepting into a mailbox is a step of the ledger."""

from __future__ import annotations

from gateway.stores.redis_scripts import WORDS, Script

_LANES = """
local function first(lane)
  local box = P..'box:'..lane
  while true do
    local T = call('LINDEX', box, 0)
    if not T then return nil end
    local s = call('HGET', P..'t:'..T, 's')
    if s and s ~= 'closed' then return T end
    call('LPOP', box)
    call('DECR', P..'waiting')
  end
end
local function free(lane)
  call('ZREM', P..'leases', lane)
  call('HDEL', P..'tokens', lane)
end
local function holds(lane, token)
  return call('HGET', P..'tokens', lane) == token
end
local function next_or_free(lane)
  local T = first(lane)
  if T then return row(T) end
  free(lane)
  return 1
end
"""

#: lane, token. A row; 1: the box is empty and the lease given back; 0: not the holder.
HEAD = Script(WORDS + _LANES + "if not holds(ARGV[1], ARGV[2]) then return 0 end return next_or_free(ARGV[1])", again=False)

#: lane, token, turn, ms. As `HEAD`; 2: the turn is not closed, so it stays, and the lease runs out.
DONE = Script(
    WORDS
    + _LANES
    + """
local lane, T = ARGV[1], ARGV[3]
if not holds(lane, ARGV[2]) then return 0 end
local s = call('HGET', P..'t:'..T, 's')
if s and s ~= 'closed' then
  call('HDEL', P..'tokens', lane)
  call('ZADD', P..'leases', ms() + ARGV[4], lane)
  return 2
end
local box = P..'box:'..lane
if call('LINDEX', box, 0) == T then
  call('LPOP', box)
  call('DECR', P..'waiting')
elseif call('LREM', box, 1, T) > 0 then
  call('DECR', P..'waiting')
end
return next_or_free(lane)
""",
    again=False,
)

#: lane, token.
HAND_BACK = Script(
    WORDS
    + _LANES
    + """
local lane = ARGV[1]
if not holds(lane, ARGV[2]) then return 0 end
free(lane)
if first(lane) then call('ZADD', P..'leases', 0, lane) end
return 1
"""
)

#: ms, then lane, token, … The lanes that are lost.
RENEW = Script(
    WORDS
    + """
local lost, till = {}, ms() + ARGV[1]
for i = 2, #ARGV, 2 do
  if call('HGET', P..'tokens', ARGV[i]) == ARGV[i + 1] then
    call('ZADD', P..'leases', 'XX', till, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
)

LOOKED_AT = 1000
#: ms, most adoptions, limit, offset, now, ms to keep, reason, detail, then channels. {lanes looked at, {lane, token, …}, {dead turn, …}}
ADOPT = Script(
    WORDS
    + _LANES
    + """
local wanted, now, limit = {}, ms(), tonumber(ARGV[3])
for i = 9, #ARGV do wanted[ARGV[i]] = true end
local function is_wanted(T)
  local c, a = string.match(T, '^(%d+):(%d+):')
  return c and wanted[string.sub(T, #c + #a + 3, #c + #a + 2 + c)]
end
for _, T in ipairs(call('ZRANGEBYSCORE', P..'strays', '-inf', now, 'LIMIT', 0, limit)) do
  local f = call('HMGET', P..'t:'..T, 's', 'y')
  call('ZREM', P..'strays', T)
  if f[1] and f[2] and f[1] ~= 'closed' then
    call('HSET', P..'t:'..T, 'l', f[2])
    call('RPUSH', P..'box:'..f[2], T)
    call('INCR', P..'waiting')
    call('ZADD', P..'leases', 'NX', 0, f[2])
  end
end
local taken, dead = {}, {}
local lanes = call('ZRANGEBYSCORE', P..'leases', '-inf', now, 'WITHSCORES', 'LIMIT', ARGV[4], 1000)
for i = 1, #lanes, 2 do
  local lane, T = lanes[i], first(lanes[i])
  if T and is_wanted(T) and tonumber(lanes[i + 1]) > 0 then
    local times = call('HINCRBY', P..'t:'..T, 'o', 1)
    if times > tonumber(ARGV[2]) then
      close(T, call('HGET', P..'t:'..T, 'q') or 0, ARGV[5], 'failed', ARGV[7], ARGV[8], ARGV[6])
      dead[#dead + 1] = T
      T = first(lane)
    end
  end
  if not T then
    free(lane)
  elseif is_wanted(T) then
    local token = call('INCR', P..'seq')
    call('HSET', P..'tokens', lane, token)
    call('ZADD', P..'leases', now + ARGV[1], lane)
    taken[#taken + 1] = lane
    taken[#taken + 1] = token
    if #taken >= 2 * limit then break end
  end
end
return {#lanes / 2, taken, dead}
""",
    again=False,
)

#: {now, lane, end of lease, first turn when that is past, …}: the leases that end first.
NEXT_ENDS = Script(
    WORDS
    + """
local now = ms()
local found = {now}
for i, word in ipairs(call('ZRANGE', P..'leases', 0, 199, 'WITHSCORES')) do
  found[#found + 1] = word
  if i % 2 == 0 then
    found[#found + 1] = tonumber(word) <= now and call('LINDEX', P..'box:'..found[#found - 1], 0) or ''
  end
end
local stray = call('ZRANGE', P..'strays', 0, 0, 'WITHSCORES')
if stray[2] then
  found[#found + 1] = ''; found[#found + 1] = stray[2]; found[#found + 1] = ''
end
return found
"""
)
