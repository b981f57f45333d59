"""What Redis does in one step each, in Lua. `PREFIX` stands for the beginning of every key, `KEYS[1]` only says on which node.

    PREFIX t:<turn>        hash     s state, a accepted, i inbound, w answer, n shown, b answered by, d answered at, c closed at,
                                    k r x outcome, q number, v the person's turn before, l lane, y lane of one that found it full,
                                    o adoptions, z attempt
           all, open       zset     turn -> number: every turn; those not closed
           o:<outcome>     zset     turn -> number: closed turns that ended otherwise than answered
           p:<person>      string   newest turn
           homes           set      channel and account of all turns
           box:<lane>      list     the mailbox; its first turn is in work
           leases          zset     lane -> end of its lease in ms of the server's clock; 0: handed back.
                                    A lane is here while its box is not empty
           tokens          hash     lane -> fencing token of its holder
           strays          zset     turn that found its lane full -> when it is lined up after all, unless somebody closes it
           waiting         string   how many turns lie in all boxes
           s:<key>, ends   string, zset    sessions; when they end
           v:<name>, shelf string, zset    the shelf; best before
           seat:<seat>, news:<topic>, seq, aside, heartbeat, version

Times from outside are microseconds since 1970 and stay text: Lua prints numbers with 14 digits only.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.messages import OutcomeKind

_RARE = ", ".join(f"'{kind.value}'" for kind in OutcomeKind if kind is not OutcomeKind.ANSWERED)

_WORDS = """
local P, call = 'PREFIX', redis.call
local function fields(T)
  return call('HMGET', P..'t:'..T, 's', 'a', 'i', 'w', 'n', 'b', 'd', 'c', 'k', 'r', 'x', 'q')
end
local function row(T)
  local r = fields(T)
  table.insert(r, 1, T)
  return r
end
local function ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function close(T, q, at, kind, reason, detail, keep)
  local key = P..'t:'..T
  call('HSET', key, 's', 'closed', 'c', at, 'k', kind, 'r', reason, 'x', detail)
  call('ZREM', P..'open', T)
  if kind ~= 'answered' then call('ZADD', P..'o:'..kind, q, T) end
  if keep ~= '0' then call('PEXPIRE', key, keep) end
end
"""

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

_FENCE = """
local P, call = 'PREFIX', redis.call
local key, state = KEYS[1], redis.call('HMGET', KEYS[1], 's', 'l', 'q')
if not state[1] then return 0 end
if state[2] and call('HGET', P..'tokens', state[2]) ~= ARGV[1] then return state[2] end
if state[1] == 'closed' then return 0 end
"""


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One step. `again`: doing it twice is doing it once, so it may be repeated when the reply was lost."""

    body: str
    again: bool = True


#: turn, home, inbound, accepted at, person, attempt, ms to keep the person; for a mailbox also: lane, per lane, total, ms of a lease.
#: {0, row…} for a known turn; {1, token or 0, ahead, full} for a new one.
ACCEPT = Script(
    _WORDS
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
    _WORDS
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
    _WORDS
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
    _WORDS
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
    _WORDS
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

#: what it was, index, member: something else that is unreadable.
SET_ASIDE = Script(
    _WORDS
    + """
call('LPUSH', P..'aside', ARGV[1])
call('LTRIM', P..'aside', 0, 999)
call('DEL', KEYS[1])
call('ZREM', P..ARGV[2], ARGV[3])
return 1
"""
)

#: lane, token. A row; 1: the box is empty and the lease given back; 0: not the holder.
HEAD = Script(_WORDS + _LANES + "if not holds(ARGV[1], ARGV[2]) then return 0 end return next_or_free(ARGV[1])", again=False)

#: lane, token, turn, ms. As `HEAD`; 2: the turn is not closed, so it stays, and the lease runs out.
DONE = Script(
    _WORDS
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
    _WORDS
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
    _WORDS
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
    _WORDS
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
    _WORDS
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

#: key, token or "", session, end or "". 0: another process holds the lane of this name.
SAVE_SESSION = Script(
    _WORDS
    + """
if (call('HGET', P..'tokens', ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('SET', KEYS[1], ARGV[3])
if ARGV[4] == '' then call('ZREM', P..'ends', ARGV[1]) else call('ZADD', P..'ends', ARGV[4], ARGV[1]) end
return 1
"""
)
#: key, token or "".
DROP_SESSION = Script(
    _WORDS
    + """
if (call('HGET', P..'tokens', ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('DEL', KEYS[1])
call('ZREM', P..'ends', ARGV[1])
return 1
"""
)
#: key, now.
TAKE_ENDED = Script(
    _WORDS
    + """
local ends = call('ZSCORE', P..'ends', ARGV[1])
if not ends or tonumber(ends) > tonumber(ARGV[2]) or call('ZSCORE', P..'leases', ARGV[1]) then return false end
local session = call('GET', KEYS[1])
call('DEL', KEYS[1])
call('ZREM', P..'ends', ARGV[1])
return session
""",
    again=False,
)
#: now, limit. {key, session, …}
ENDED = Script(
    _WORDS
    + """
local found = {}
for _, key in ipairs(call('ZRANGEBYSCORE', P..'ends', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])) do
  found[#found + 1] = key
  found[#found + 1] = call('GET', P..'s:'..key)
end
return found
"""
)

_SHELVE = """
call('SET', KEYS[1], ARGV[2]..'|'..ARGV[3])
if ARGV[2] == '' then call('ZREM', P..'shelf', ARGV[1]) else call('ZADD', P..'shelf', ARGV[2], ARGV[1]) end
return 1
"""
#: name, best before or "", value.
PUT = Script(_WORDS + _SHELVE)
#: name, best before or "", value, now. 0: there is one already.
ADD = Script(
    _WORDS
    + """
local old = call('GETRANGE', KEYS[1], 0, 20)
if old ~= '' then
  local till = tonumber(string.match(old, '^(%d*)|') or '')
  if not till or till > tonumber(ARGV[4]) then return 0 end
end
"""
    + _SHELVE,
    again=False,
)
#: name.
TAKE_DOWN = Script(_WORDS + "call('ZREM', P..'shelf', ARGV[1]) return call('DEL', KEYS[1])")
#: now, limit.
CLEAR_SHELF = Script(
    _WORDS
    + """
local past = call('ZRANGEBYSCORE', P..'shelf', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, name in ipairs(past) do
  call('DEL', P..'v:'..name)
  call('ZREM', P..'shelf', name)
end
return #past
""",
    again=False,
)

#: who, ms.
SIT = Script(
    """
local now = redis.call('GET', KEYS[1])
if now and now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)
#: who.
STAND = Script("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1")

SCRIPTS = tuple(value for value in list(globals().values()) if isinstance(value, Script))
