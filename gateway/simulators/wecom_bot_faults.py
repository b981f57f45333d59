"""What can be made to go wrong in the simulated WeCom."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class WeComBotFaults:
    """Knobs; times in seconds. They may be turned while the simulator runs."""

    subscribe_errcodes: list[int] = field(default_factory=list)
    """What the next subscriptions answer, one each; 0 is success."""
    errcodes: dict[str, list[int]] = field(default_factory=dict)
    """Command → what its next frames answer, one each, instead of being shown; 0: as usual."""
    ack_delay_s: float = 0.0
    silent_acks: int = 0
    """So many of the next answers are shown but never acknowledged."""
    silent_pings: bool = False
    cut_after: int = 0
    """So many of the next answers are shown, then the connection is cut instead of acknowledged."""
    close_at_once: bool = False
    """Every WebSocket is closed right after it was opened."""
    never_answer: bool = False
    """WebSockets open, and nothing is ever said on them."""
    duplicate_messages: bool = False
    """Every message is told twice, as a second delivery with another req_id would."""
    unsubscribed: bool = False
    """The connection lives and answers pings, but every answer is refused with 846609 until somebody subscribes anew."""
    stream_ttl_s: float = 360.0
    """From its first frame on a stream may be changed so long."""
    finished_errcode: int = 0
    """What a frame for a finished stream answers; it changes nothing either way. What WeCom says is not known."""
    req_ttl_s: float = 86_400.0
    per_minute: int = 30
    count_streams: bool = True
    """Whether each frame of a stream counts as a message."""
