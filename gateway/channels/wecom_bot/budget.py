"""How often one conversation may be written to: 30 times a minute and 1000 times an hour, answers and other messages together
(WeCom's document 101463, 2026-04-01). Whether every frame of a stream counts is not documented; here it does. Pure."""

from __future__ import annotations

from collections import deque

PER_MINUTE = 30
PER_HOUR = 1_000
KEPT_CHATS = 5_000
_MINUTE_S = 60.0
_HOUR_S = 3_600.0


class Budget:
    """Counts per conversation. Times are monotonic seconds."""

    def __init__(self, *, per_minute: int = PER_MINUTE, per_hour: int = PER_HOUR) -> None:
        self._per_minute = per_minute
        self._per_hour = per_hour
        self._sent: dict[str, deque[float]] = {}
        self._refused_until: dict[str, float] = {}

    def wait_s(self, chat: str, now: float) -> float:
        """Seconds until one more may be sent; 0: now."""
        sent = self._sent.get(chat, ())
        minute = sent[-self._per_minute] + _MINUTE_S - now if len(sent) >= self._per_minute else 0.0
        hour = sent[-self._per_hour] + _HOUR_S - now if len(sent) >= self._per_hour else 0.0
        return max(minute, hour, self._refused_until.get(chat, now) - now, 0.0)

    def left(self, chat: str, now: float) -> int:
        """How many may still be sent within this minute."""
        if self.wait_s(chat, now):
            return 0
        sent = self._sent.get(chat, ())
        return self._per_minute - sum(1 for at in list(sent)[-self._per_minute :] if at > now - _MINUTE_S)

    def spend(self, chat: str, now: float) -> None:
        sent = self._sent.pop(chat, None)
        self._sent[chat] = deque(maxlen=self._per_hour) if sent is None else sent
        self._sent[chat].append(now)
        self._forget(now)

    def not_sent(self, chat: str) -> None:
        """What was spent last was not sent after all."""
        if self._sent.get(chat):
            self._sent[chat].pop()

    def refused(self, chat: str, now: float, wait_s: float) -> None:
        """WeCom counts otherwise: nothing for this long."""
        self._refused_until[chat] = now + wait_s

    def _forget(self, now: float) -> None:
        """The conversation that was silent longest makes room for a new one."""
        while len(self._sent) > KEPT_CHATS:
            self._sent.pop(next(iter(self._sent)))
        if len(self._refused_until) > KEPT_CHATS:
            self._refused_until = {chat: until for chat, until in self._refused_until.items() if until > now}
