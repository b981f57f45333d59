"""The only file that knows the `itchat` package (itchat-uos 1.5.0.dev0) and `requests`. Everything here blocks: call it in a thread.

The package is driven step by step through its public functions. Never used: `login`, `auto_login`, `run` (they own the process and
print), `send` (a text that begins with `@fil@` uploads that local file to the chat) and the pickled hot reload.

Two limits of the package reach through: `itchat.config.BASE_URL` is one for all accounts of the process, so accounts with different
`base_url` need processes of their own; and importing it writes to stdout, which is caught here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import ipaddress
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from gateway.channels.wechat.people import Contact, People, people_of
from gateway.channels.wechat.poll import Poll
from gateway.channels.wechat.ret_codes import SESSION_OVER, broken_send, refused_send
from gateway.channels.wechat.transport import AccountLimited, SessionEnded, Unreachable
from gateway.errors import SendUncertain

logger = logging.getLogger(__name__)

OFFICIAL_BASE_URL = "https://login.weixin.qq.com"
_BROKEN = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""How the package fails when an answer lacks what it expects."""
_KEPT = ("BaseRequest", "skey", "wxsid", "wxuin", "pass_ticket", "url", "fileUrl", "syncUrl", "deviceid", "logintime", "SyncKey", "synckey")
_KEPT_OF_ME = ("UserName", "NickName", "Uin", "Sex", "VerifyFlag", "HeadImgUrl")
_KEPT_OF_COOKIES = ("name", "value", "domain", "path", "expires", "secure")
_CHECK = re.compile(r'retcode\s*:\s*"(-?\d+)"\s*,\s*selector\s*:\s*"(\d+)"')
_LIMITED = re.compile(r"<message>(.*?)</message>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one sync brought: raw messages in order, and contacts that are new or changed."""

    messages: list[dict[str, object]]
    contacts: list[Contact]


class ItchatDoor:
    """One login of one account. Raises Unreachable, SessionEnded, AccountLimited, and SendError from `send_text`."""

    def __init__(
        self, *, base_url: str | None = None, connect_timeout_s: float = 10, read_timeout_s: float = 35, send_timeout_s: float = 20
    ) -> None:
        self._base_url = (base_url or OFFICIAL_BASE_URL).rstrip("/")
        self._connect_s, self._read_s, self._send_s = connect_timeout_s, read_timeout_s, send_timeout_s
        self._core: Any = None
        self._failures = 0
        self._last: dict[str, str] = {}

    def open(self) -> None:
        """Import the package and make a fresh client. Keeps the cookies of the one before: push login needs them."""
        with contextlib.redirect_stdout(io.StringIO()):  # the package draws a block when imported, and dies without a stdout
            itchat = importlib.import_module("itchat")
        itchat.set_logging(showOnCmd=False, loggingLevel=logging.WARNING)  # its debug lines carry message texts
        logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)  # its debug lines carry URLs with keys
        itchat.config.BASE_URL = self._base_url
        core = itchat.load_sync_itchat()
        core.s.trust_env = not _is_loopback(self._base_url)
        core.s.request = self._guarded(core.s.request)
        if self._core is not None:
            core.s.cookies.update(self._core.s.cookies)
            self._core.s.close()
        self._core = core

    def close(self) -> None:
        if self._core is not None:
            self._core.s.close()

    # Signing in

    def new_code(self) -> str:
        """A new QR code's id; the code itself is `https://login.weixin.qq.com/l/<id>`."""
        uuid = self._core.get_QRuuid()
        if not uuid:
            raise Unreachable("WeChat gave no QR code")
        return str(uuid)

    def push(self) -> str | None:
        """Ask the phone that signed in last to confirm again; None when WeChat wants a scan instead."""
        login = importlib.import_module("itchat.components.login")
        try:
            return str(login.push_login(self._core) or "") or None
        except _BROKEN:
            return None

    def poll(self, uuid: str) -> Poll:
        """Where that code is; WeChat holds this call up to 25 s. After CONFIRMED call `enter`."""
        self._last.pop("webwxnewloginpage", None)
        try:
            code = self._core.check_login(uuid)
        except _BROKEN as error:
            said = _LIMITED.search(self._last.get("webwxnewloginpage", ""))
            raise AccountLimited(f"{AccountLimited.__doc__} WeChat says: {said[1] if said else 'nothing'}") from error
        return Poll(code) if code in {"408", "201", "200"} else Poll.EXPIRED

    def enter(self) -> None:
        """The first call of a new login: who we are and where the sync begins."""
        try:
            answer = self._core.web_init()
            ret = str(answer["BaseResponse"]["Ret"])
        except _BROKEN as error:
            ret = _ret_in(self._last.get("webwxinit", ""))
            if ret in {"", "0"}:
                raise Unreachable("webwxinit gave no usable answer") from error
        if ret != "0":
            raise SessionEnded(ret)
        with contextlib.suppress(Unreachable, *_BROKEN):  # only the line "signed in on the web" on the phone
            self._core.show_mobile_login()

    def fetch_contacts(self) -> None:
        """Fetch the address book. WeChat sometimes leaves the list out; people are then asked for when they write."""
        before = self._failures
        try:
            self._core.get_contact(True)
        except _BROKEN:
            logger.warning("WeChat gave no contact list")
        if self._failures != before:  # the package swallows lost connections here
            raise Unreachable("the contact list could not be fetched")

    def people(self) -> People:
        """Everybody that this login was told about so far. Asks nobody."""
        core = self._core
        with core.storageClass.updateLock:
            known = _contacts([*core.memberList, *core.mpList, *core.chatroomList])
            return people_of(uin=str(core.loginInfo["wxuin"]), me=Contact.model_validate(dict(core.loginInfo["User"])), contacts=known)

    def rooms(self, user_names: list[str]) -> list[Contact]:
        """Fetch these rooms with their members; those that WeChat does not tell about are left out."""
        try:
            self._core.update_chatroom(user_names)
        except _BROKEN:
            logger.warning("WeChat did not tell about %d group(s)", len(user_names))
        return self._known(set(user_names))

    def friends(self, user_names: list[str]) -> list[Contact]:
        """Fetch these people, who are not in the address book yet."""
        try:
            self._core.update_friend(user_names)
        except _BROKEN:
            logger.warning("WeChat did not tell about %d contact(s)", len(user_names))
        return self._known(set(user_names))

    # Hearing and speaking

    def check(self) -> bool:
        """Wait for news, up to 25 s; True when `fetch` should be called. Raises SessionEnded."""
        login = importlib.import_module("itchat.components.login")
        selector = login.sync_check(self._core)
        if selector is not None:
            return str(selector) != "0"
        found = _CHECK.search(self._last.get("synccheck", ""))  # the package hides the code, and wants exact spacing
        if found is None:
            raise Unreachable("synccheck gave no usable answer")
        if found[1] != "0":
            raise SessionEnded(found[1])
        return found[2] != "0"

    def fetch(self) -> Batch:
        """Everything since the last fetch. Raises SessionEnded."""
        info = self._core.loginInfo
        before = info["SyncKey"], info["synckey"]
        try:
            messages, contacts = self._core.get_msg()
        except _BROKEN as error:
            info["SyncKey"], info["synckey"] = before  # half an answer must not move us past messages
            raise Unreachable("webwxsync gave no usable answer") from error
        ret = _ret_in(self._last.pop("webwxsync", ""))
        if ret in SESSION_OVER:
            raise SessionEnded(ret)
        if ret != "0":
            raise Unreachable(f"webwxsync was refused (Ret {ret or 'missing'})")
        return Batch(list(messages or ()), self._take_contacts(contacts or ()))

    def send_text(self, to: str, text: str) -> str:
        """Send plain text, whatever it begins with; returns WeChat's MsgID."""
        try:
            result = self._core.send_raw_msg(1, text, to)
            ret = result["BaseResponse"].get("Ret")
        except Unreachable as error:
            raise broken_send(error) from error
        except _BROKEN as error:
            raise SendUncertain("WeChat's answer to a send cannot be read") from error
        if ret == 0:
            return str(result.get("MsgID") or "")
        raise refused_send(ret)

    def accept_friend(self, user_name: str, ticket: str) -> None:
        """Accept a friend request; the new friend is fetched when he writes."""
        with contextlib.suppress(*_BROKEN):
            self._core.accept_friend(user_name, ticket, autoUpdate=False)

    # A login that outlives the process

    def snapshot(self) -> dict[str, object]:
        """This login as JSON data. It is as good as a password."""
        info, jar = self._core.loginInfo, self._core.s.cookies
        with jar._cookies_lock:  # a send in another thread may be given a cookie just now
            cookies = list(jar)
        return {
            "info": {name: info[name] for name in _KEPT if name in info},
            "me": {name: info["User"][name] for name in _KEPT_OF_ME if name in info["User"]},
            "cookies": [{name: getattr(cookie, name) for name in _KEPT_OF_COOKIES} for cookie in cookies],
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go on with a login; whether WeChat still honours it shows at the next call. Raises KeyError, TypeError or ValueError."""
        templates = importlib.import_module("itchat.storage.templates")
        core = self._core
        core.loginInfo.update({name: snapshot["info"][name] for name in _KEPT})
        core.loginInfo["User"] = templates.User(snapshot["me"])
        core.loginInfo["User"].core = core
        core.storageClass.userName = Contact.model_validate(snapshot["me"]).user_name
        core.storageClass.nickName = snapshot["me"].get("NickName", "")
        core.memberList.append(core.loginInfo["User"])
        for cookie in snapshot["cookies"]:
            core.s.cookies.set(**{name: cookie[name] for name in _KEPT_OF_COOKIES})

    # Inside

    def _guarded(self, request: Callable[..., Any]) -> Callable[..., Any]:
        """`requests` with a deadline on every call and one way to fail; the package gives most calls neither."""
        RequestException = importlib.import_module("requests").RequestException

        def guarded(method: str, url: str, **options: Any) -> Any:
            page = urlsplit(url).path.rsplit("/", 1)[-1]
            options["timeout"] = (self._connect_s, self._send_s if page == "webwxsendmsg" else self._read_s)
            try:
                response = request(method, url, **options)
            except RequestException as error:
                self._failures += 1
                raise Unreachable(f"{page or 'WeChat'}: {type(error).__name__}", maybe_sent=not _never_left(error)) from error
            if response.status_code >= 400:
                self._failures += 1
                raise Unreachable(f"{page}: HTTP {response.status_code}", status=response.status_code)
            if page in {"synccheck", "webwxsync", "webwxnewloginpage", "webwxinit"}:
                self._last[page] = response.content.decode("utf-8", "replace")
            return response

        return guarded

    def _take_contacts(self, raw: Iterable[dict[str, Any]]) -> list[Contact]:
        contact = importlib.import_module("itchat.components.contact")
        changed: set[str] = set()
        for one in raw:
            try:
                changed.add(one["UserName"])
                one.setdefault("MemberList", [])
                (contact.update_local_chatrooms if "@@" in one["UserName"] else contact.update_local_friends)(self._core, [one])
            except _BROKEN as error:
                logger.warning("A changed contact cannot be read (%s); it stays as it was", type(error).__name__)
        return self._known(changed)

    def _known(self, user_names: set[str]) -> list[Contact]:
        core = self._core
        with core.storageClass.updateLock:
            everybody = [*core.memberList, *core.mpList, *core.chatroomList]
            return _contacts(one for one in everybody if one.get("UserName") in user_names)


def _contacts(raw: Iterable[Mapping[str, object]]) -> list[Contact]:
    found = []
    for one in raw:
        try:
            found.append(Contact.model_validate(dict(one)))
        except ValidationError:
            logger.warning("A contact cannot be read and is left out")
    return found


def _ret_in(answer: str) -> str:
    try:
        return str(json.loads(answer)["BaseResponse"]["Ret"])
    except _BROKEN:
        return ""


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _never_left(error: Exception) -> bool:
    """Whether the connection was never made, so that nothing can have been shown."""
    requests = importlib.import_module("requests").exceptions
    if isinstance(error, requests.ConnectTimeout | requests.ProxyError | requests.SSLError):
        return True
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return type(reason).__name__ in {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError"}
