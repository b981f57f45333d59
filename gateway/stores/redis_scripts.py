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


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One step. `again`: doing it twice is doing it once, so it may be repeated when the reply was lost."""

    body: str
    again: bool = True


WORDS = """
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
"""What most scripts begin with."""
