"""The steps of the ledger; `redis_scripts` names the keys."""

from __future__ import annotations

from gateway.messages import OutcomeKind
from gateway.stores.redis_scripts import WORDS, Script

_RARE = ", ".join(f"'{kind.value}'" for kind in OutcomeKind if kind is not OutcomeKind.ANSWERED)

_FENCE = """
local P, call = 'PREFIX', redis.call
local key, state = KEYS[1], redis.call('HMGET', KEYS[1], 's', 'l', 'q')
if not state[1] then return 0 end
if state[2] and call('HGET', P..'tokens', state[2]) ~= ARGV[1] then return state[2] end
if state[1] == 'closed' then return 0 end
"""

#: turn, home, inbound, accepted at, person, attempt, ms to keep the person; for a mailbox also: lane, per lane, total, ms of a lease.
#: {0, row…} for a known turn; {1, token or 0, ahead, full} for a new one.
ACCEPT = Script(
    WORDS
    + """
local key, T, lane = KEYS[1], ARGV[1], ARGV[8]
local box = lane and P..'box:'..lane
local known = call('HMGET', key, 'z', 'l', 'q')
if known[1] or known[3] then
  if known[1] ~= ARGV[6] then
    local r = row(T)
    table.insert(r, 1, 0)
    return r
  end
  if not known[2] then return {1, 0, 0, lane and 1 or 0} end
  local mine = call('HGET', P..'tokens', lane) == known[3]
  return {1, mine and tonumber(known[3]) or 0, call('LPOS', box, T) or 0, 0}
end
local q = call('INCR', P..'seq')
local r = {'s', 'accepted', 'a', ARGV[4], 'i', ARGV[3], 'q', q, 'z', ARGV[6]}
local before
if ARGV[7] == '0' then
  before = call('SET', P..'p:'..ARGV[5], T, 'GET')
else
  before = call('SET', P..'p:'..ARGV[5], T, 'PX', ARGV[7], 'GET')
end
if before and before ~= T then r[#r + 1] = 'v'; r[#r + 1] = before end
local mine, ahead, full = 0, 0, 0
if lane then
  ahead = call('LLEN', box)
  if ahead > tonumber(ARGV[9]) or tonumber(call('GET', P..'waiting') or 0) >= tonumber(ARGV[10]) then
    full = 1
    r[#r + 1] = 'y'; r[#r + 1] = lane
    call('ZADD', P..'strays', ms() + ARGV[11], T)
  else
    r[#r + 1] = 'l'; r[#r + 1] = lane
    call('RPUSH', box, T)
    call('INCR', P..'waiting')
    if ahead == 0 then
      mine = q
      call('HSET', P..'tokens', lane, q)
      call('ZADD', P..'leases', ms() + ARGV[11], lane)
    else
      call('ZADD', P..'leases', 'NX', 0, lane)
    end
  end
end
call('HSET', key, unpack(r))
call('ZADD', P..'all', q, T)
call('ZADD', P..'open', q, T)
call('SADD', P..'homes', ARGV[2])
return {1, mine, ahead, full}
"""
)

#: All four: token, … 1: written; 0: unknown or closed; a lane: this is not the token of its holder.
ANSWERING = Script(_FENCE + "call('HSET', key, 's', 'answering') return 1")
ANSWERED = Script(_FENCE + "call('HSET', key, 's', 'answered', 'w', ARGV[2], 'b', ARGV[3], 'd', ARGV[4]) return 1")
#: token, state, pieces.
SHOWN = Script(_FENCE + "call('HSET', key, 's', ARGV[2], 'n', ARGV[3]) return 1")
#: token, turn, closed at, kind, reason, detail, ms to keep it.
CLOSED = Script(
    _FENCE
    + """
call('HSET', key, 's', 'closed', 'c', ARGV[3], 'k', ARGV[4], 'r', ARGV[5], 'x', ARGV[6])
call('ZREM', P..'open', ARGV[2])
if not state[2] then call('ZREM', P..'strays', ARGV[2]) end
if ARGV[4] ~= 'answered' then call('ZADD', P..'o:'..ARGV[4], state[3] or 0, ARGV[2]) end
if ARGV[7] ~= '0' then call('PEXPIRE', key, ARGV[7]) end
return 1
"""
)

#: index, "asc" or "desc", bound, limit, state or "", outcome or "". {the last number seen, row…}; no number: the end.
SCAN = Script(
    WORDS
    + """
local page
if ARGV[2] == 'asc' then
  page = call('ZRANGEBYSCORE', P..ARGV[1], ARGV[3], '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
else
  page = call('ZREVRANGEBYSCORE', P..ARGV[1], ARGV[3], '-inf', 'WITHSCORES', 'LIMIT', 0, 500)
end
local found = {''}
for i = 1, #page, 2 do
  found[1] = page[i + 1]
  local r = row(page[i])
  if r[2] and (ARGV[5] == '' or r[2] == ARGV[5]) and (ARGV[6] == '' or r[10] == ARGV[6]) then
    found[#found + 1] = r
    if #found > tonumber(ARGV[4]) then break end
  end
end
return found
"""
)

#: person, turn or "". Follows the person's turns back; numbers must fall, or a forgotten id that came again would lead in a circle.
OF_PERSON = Script(
    WORDS
    + """
local limit = ARGV[2] ~= '' and call('HGET', P..'t:'..ARGV[2], 'q')
local T, last = call('GET', P..'p:'..ARGV[1]), math.huge
while T do
  local f = call('HMGET', P..'t:'..T, 'q', 'v')
  local q = tonumber(f[1] or '')
  if not q or q >= last then return false end
  if not limit or q < tonumber(limit) then return row(T) end
  T, last = f[2], q
end
return false
"""
)

#: before, limit.
PRUNE = Script(
    WORDS
    + f"""
local count, rare = 0, {{{_RARE}}}
for _, T in ipairs(call('ZRANGE', P..'all', 0, ARGV[2] - 1)) do
  local f = call('HMGET', P..'t:'..T, 's', 'c')
  if not f[1] or (f[2] and tonumber(f[2]) < tonumber(ARGV[1])) then
    call('DEL', P..'t:'..T)
    call('ZREM', P..'all', T)
    call('ZREM', P..'open', T)
    for _, kind in ipairs(rare) do call('ZREM', P..'o:'..kind, T) end
    count = count + 1
  end
end
return count
""",
    again=False,
)

#: turn, what it was, accepted at, inbound, reason, detail, ms to keep it: an unreadable turn is kept elsewhere and closed.
STAND_IN = Script(
    WORDS
    + """
call('LPUSH', P..'aside', ARGV[2])
call('LTRIM', P..'aside', 0, 999)
call('HSET', KEYS[1], 'a', ARGV[3], 'i', ARGV[4], 'n', 0)
call('HDEL', KEYS[1], 'w', 'b', 'd')
local q = tonumber(call('HGET', KEYS[1], 'q') or '') or 0
close(ARGV[1], q, ARGV[3], 'failed', ARGV[5], ARGV[6], ARGV[7])
return 1
"""
)
