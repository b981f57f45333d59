"""The steps of sessions, shelf and seats; `redis_scripts` names the keys."""

from __future__ import annotations

from gateway.stores.redis_scripts import WORDS, Script

#: key, token or "", session, end or "". 0: another process holds the lane of this name.
SAVE_SESSION = Script(
    WORDS
    + """
if (call('HGET', P..'tokens', ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('SET', KEYS[1], ARGV[3])
if ARGV[4] == '' then call('ZREM', P..'ends', ARGV[1]) else call('ZADD', P..'ends', ARGV[4], ARGV[1]) end
return 1
"""
)
#: key, token or "".
DROP_SESSION = Script(
    WORDS
    + """
if (call('HGET', P..'tokens', ARGV[1]) or '') ~= ARGV[2] then return 0 end
call('DEL', KEYS[1])
call('ZREM', P..'ends', ARGV[1])
return 1
"""
)
#: key, now.
TAKE_ENDED = Script(
    WORDS
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
    WORDS
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
PUT = Script(WORDS + _SHELVE)
#: name, best before or "", value, now. 0: there is one already.
ADD = Script(
    WORDS
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
TAKE_DOWN = Script(WORDS + "call('ZREM', P..'shelf', ARGV[1]) return call('DEL', KEYS[1])")
#: now, limit.
CLEAR_SHELF = Script(
    WORDS
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

#: what it was, index, member: something else that is unreadable.
SET_ASIDE = Script(
    WORDS
    + """
call('LPUSH', P..'aside', ARGV[1])
call('LTRIM', P..'aside', 0, 999)
call('DEL', KEYS[1])
call('ZREM', P..ARGV[2], ARGV[3])
return 1
"""
)
