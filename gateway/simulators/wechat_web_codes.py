"""The QR codes of the WeChat Web simulator: they scan and confirm themselves after so many polls."""

from __future__ import annotations

import secrets
import time

from starlette.responses import Response

from gateway.simulators.wechat_web_faults import WeChatWebFaults


class Codes:
    """Every code that was given out and not yet used."""

    def __init__(self, faults: WeChatWebFaults) -> None:
        self._faults = faults
        self._polls: dict[str, int] = {}
        self._expired: set[str] = set()

    def new(self) -> str:
        uuid = secrets.token_urlsafe(9)
        self._polls[uuid] = 0
        if self._faults.use_up("expired_codes"):
            self._expired.add(uuid)
        return uuid

    def taken(self, uuid: str) -> bool:
        """Use a confirmed code; False when there is no such code."""
        return self._polls.pop(uuid, None) is not None

    def poll(self, uuid: str, page: str) -> Response:
        """408 until scanned, 201 until confirmed, then 200 with where to go; 400 for a code that is not good."""
        if uuid not in self._polls or uuid in self._expired:
            return script("window.code=400;")
        self._polls[uuid] += 1
        polls, scanned = self._polls[uuid], self._faults.polls_until_scanned
        if polls <= scanned:
            return script("window.code=408;")
        if self._faults.never_confirmed or polls <= scanned + self._faults.polls_until_confirmed:
            return script("window.code=201;window.userAvatar='data:img/jpg;base64,';")
        where = f"{page}?ticket={secrets.token_hex(12)}&uuid={uuid}&lang=zh_CN&scan={int(time.time())}"
        return script(f'window.code=200;\nwindow.redirect_uri="{where}";')


def script(text: str) -> Response:
    return Response(text, media_type="text/javascript")


def xml(text: str) -> Response:
    """The page after the sign-in: a redirect that leads nowhere, as the real one."""
    return Response(text, status_code=301, media_type="text/plain")
