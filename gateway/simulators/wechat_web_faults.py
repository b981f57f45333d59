"""What can go wrong at the WeChat Web simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class WeChatWebFaults:
    """The knobs. Counters count down to 0 as they are used up."""

    hold_s: float = 0.5
    """How long synccheck waits for news; the real server holds about 25 s."""
    login_hold_s: float = 0.0
    """How long a login poll waits; the real server holds about 25 s."""
    polls_until_scanned: int = 1
    """Login polls that are answered 408 before the code counts as scanned."""
    polls_until_confirmed: int = 1
    """Login polls that are answered 201 before the scan is confirmed."""
    expired_codes: int = 0
    """So many of the next QR codes turn out to be expired (400)."""
    never_confirmed: bool = False
    """201 for ever: scanned, but nobody presses the button."""
    refuse_push_login: bool = False
    limited: bool = False
    """The account may not use WeChat Web: 1203 and no skey."""
    init_ret: int = 0
    """webwxinit answers with this Ret."""
    no_contact_list: bool = False
    """Contact calls answer without their list."""
    rooms_unlisted: bool = False
    """Groups are only told about when asked for by id."""
    wrong_spacing: bool = False
    """synccheck answers with spaces that the package does not expect."""
    retcode: str = "0"
    """synccheck answers with this; 1100, 1101, 1102 end the login."""
    sync_ret: int = 0
    """webwxsync answers with this Ret while synccheck keeps saying that there is news."""
    drop_calls: int = 0
    """So many calls are cut without an answer."""
    bad_gateway: int = 0
    """So many calls are answered 502 with an HTML page."""
    send_delay_s: float = 0.0
    send_ret: int = 0
    """webwxsendmsg answers with this Ret and shows nothing."""
    drop_sends: int = 0
    """So many sends are shown to the person and then cut without an answer."""
    poison: int = 0
    """So many messages are preceded by one that lacks required fields."""
    duplicates: int = 0
    """So many messages are delivered twice with the same MsgId."""
    raw_newline: bool = False
    """Newlines in text are sent raw instead of as `<br/>`."""

    def use_up(self, knob: str) -> bool:
        """Count one of a counting knob down; whether there was one."""
        left = int(getattr(self, knob))
        setattr(self, knob, max(left - 1, 0))
        return left > 0
