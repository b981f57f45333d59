"""WeChat Web with the UOS login, as the package `itchat-uos` speaks it: QR sign-in, contacts, sync, text in private and in groups.

Written from what itchat-uos 1.5.0.dev0 sends and needs (read 2026-11-22); the unmodified package passes against it.
Ids change at every login, text is HTML-escaped, our own sends come back, and an old SyncKey gets its messages again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.simulators.base import Shown, Simulator
from gateway.simulators.wechat_web_account import Json, Login, World, wire_text
from gateway.simulators.wechat_web_codes import Codes, script, xml
from gateway.simulators.wechat_web_faults import WeChatWebFaults

__all__ = ["WeChatWebFaults", "WeChatWebSimulator"]

BASE = "/cgi-bin/mmwebwx-bin"
Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


class WeChatWebSimulator(Simulator):
    """One WeChat account on the web, its friends and its groups. Scans and confirms its QR codes by itself."""

    faults: WeChatWebFaults

    def __init__(
        self,
        *,
        friends: Iterable[str] = ("小明", "小红"),
        groups: Mapping[str, Iterable[str]] | None = None,
        officials: Iterable[str] = ("某某公众号",),
        nick: str = "bot",
        faults: WeChatWebFaults | None = None,
    ) -> None:
        super().__init__()
        self.faults = faults or WeChatWebFaults()
        self.world = World(friends, groups if groups is not None else {"公司群": ("小明", "阿强")}, officials, nick)
        self.login: Login | None = None
        self.logins = 0
        """How often somebody signed in."""
        self.calls: Counter[str] = Counter()
        """How often each page was called."""
        self._codes = Codes(self.faults)
        self._news = asyncio.Condition()
        self._send_ids = itertools.count(8_000_000_000_000_000_001)

    def routes(self) -> list[BaseRoute]:
        pages: dict[str, Handler] = {
            "/": self._front_page,
            "/jslogin": self._new_code,
            f"{BASE}/login": self._poll,
            f"{BASE}/webwxpushloginurl": self._push_login,
            f"{BASE}/webwxnewloginpage": self._enter,
            f"{BASE}/webwxinit": self._init,
            f"{BASE}/webwxstatusnotify": self._accepted,
            f"{BASE}/webwxgetcontact": self._contacts,
            f"{BASE}/webwxbatchgetcontact": self._some_contacts,
            f"{BASE}/synccheck": self._check,
            f"{BASE}/webwxsync": self._sync,
            f"{BASE}/webwxsendmsg": self._send,
            f"{BASE}/webwxverifyuser": self._befriend,
            f"{BASE}/webwxlogout": self._logout,
        }
        return [Route(path, self._faulty(page), methods=["GET", "POST"]) for path, page in pages.items()]

    # What people do

    async def say(  # type: ignore[override]  # narrower than the base on purpose: these are the words a person has here
        self,
        *,
        sender: str,
        text: str = "",
        group: str | None = None,
        at: str | None = None,
        kind: int = 1,
        fields: Mapping[str, object] | None = None,
    ) -> str:
        """`sender` writes, privately or in `group`; returns the MsgId.

        `at="bot"` calls the bot by the name it has there, any other `at` somebody else. `kind` and `fields` make other
        messages than text (34 a voice message; 49 with `AppMsgType` 57 a quote reply). Raises KeyError for an unknown group.
        """
        chat = group if group is not None else sender
        if group is not None and sender not in self.world.groups[group].members:
            self.world.groups[group].members.append(sender)
        if at is not None:
            text = f"@{self._bot_in(group) if at == 'bot' else at}\u2005{text}"
        content = wire_text(text).replace("<br/>", "\n" if self.faults.raw_newline else "<br/>")
        raw = self.world.message(content, kind=kind, **(fields or {}))
        if self.faults.use_up("poison"):
            await self._happen(chat, sender, {"MsgId": "", "Content": "", "MsgType": 1})
        await self._happen(chat, sender, raw)
        if self.faults.use_up("duplicates"):
            await self._happen(chat, sender, raw)
        return str(raw["MsgId"])

    async def type_on_phone(self, *, to: str, text: str) -> str:
        """The account's owner writes from the phone to a friend or group; the web login sees it, too."""
        raw = self.world.message(wire_text(text))
        await self._happen(to, "", raw)
        return str(raw["MsgId"])

    async def notice(self, *, group: str, text: str) -> None:
        """A grey line in a group, such as somebody joining."""
        self.world.append(group, group, self.world.message(wire_text(text), kind=10000), prefixed=False)
        await self._wake()

    async def ask_for_friendship(self, *, name: str, greeting: str = "") -> str:
        """A stranger asks to be accepted; returns the MsgId."""
        info = {"UserName": self._id_of(name), "NickName": name, "Content": greeting}
        raw = self.world.message("", kind=37, RecommendInfo=info, Ticket=f"v4_{secrets.token_hex(8)}")
        await self._happen("fmessage", "fmessage", raw)
        return str(raw["MsgId"])

    async def rename_bot(self, group: str, display: str, *, tell: bool = True) -> None:
        """The bot gets another name in a group; `tell`: the login is told (the real server sometimes does not)."""
        self.world.groups[group].bot_display = display
        if tell:
            await self._happen(group, "", None)

    async def rename(self, name: str, nick: str) -> None:
        """A friend calls himself otherwise; the login is told."""
        self.world.nicks[name] = nick
        await self._happen(name, "", None)

    async def end_login(self, retcode: str = "1101") -> None:
        """The phone or the server ends the login."""
        if self.login is not None:
            self.login.retcode = retcode
        await self._wake()

    # Signing in

    async def _front_page(self, request: Request) -> Response:
        return HTMLResponse("<html>simulated WeChat Web</html>")

    async def _new_code(self, request: Request) -> Response:
        return script(f'window.QRLogin.code = 200; window.QRLogin.uuid = "{self._codes.new()}";')

    async def _push_login(self, request: Request) -> Response:
        if self.faults.refuse_push_login or request.query_params.get("uin") != self.world.account.uin:
            return JSONResponse({"ret": "1", "msg": "push login refused"})
        return JSONResponse({"ret": "0", "msg": "all ok", "uuid": self._codes.new()})

    async def _poll(self, request: Request) -> Response:
        await asyncio.sleep(self.faults.login_hold_s)
        return self._codes.poll(request.query_params.get("uuid", ""), f"{self.base_url}{BASE}/webwxnewloginpage")

    async def _enter(self, request: Request) -> Response:
        known = self._codes.taken(request.query_params.get("uuid", ""))
        from_uos = bool(request.headers.get("client-version") and request.headers.get("extspam"))
        if self.faults.limited or not known or not from_uos:
            return xml("<error><ret>1203</ret><message>当前登录环境异常。为了你的帐号安全，暂时不能登录web微信。</message></error>")
        login = self.login = Login()
        for name in [*self.world.friends, *self.world.officials]:
            login.id_of(name)
        login.ids["fmessage"] = "fmessage"
        self.logins += 1
        response = xml(
            f"<error><ret>0</ret><message></message><skey>{login.skey}</skey><wxsid>{login.sid}</wxsid><wxuin>{self.world.account.uin}</wxuin>"
            f"<pass_ticket>{login.pass_ticket}</pass_ticket><isgrayscale>1</isgrayscale></error>"
        )
        cookies = {"wxsid": login.sid, "wxuin": self.world.account.uin, "wxloadtime": str(int(time.time()))}
        tickets = {name: secrets.token_urlsafe(18) for name in ("webwx_data_ticket", "webwxuvid", "webwx_auth_ticket")}
        for name, value in {**cookies, **tickets}.items():
            response.set_cookie(name, value, path="/", max_age=43_200)
        return response

    async def _init(self, request: Request) -> Response:
        login = await self._login_of(request)
        ret = self.faults.init_ret or (0 if login else 1101)
        if ret or login is None:
            return JSONResponse(
                {"BaseResponse": {"Ret": ret, "ErrMsg": ""}, "User": {"UserName": "", "NickName": ""}, "InviteStartCount": 0}
            )
        rooms = [] if self.faults.rooms_unlisted else [self.world.room(name, login) for name in self.world.groups]
        account = {"User": self.world.user(login), "InviteStartCount": 40, "SKey": login.skey}
        return JSONResponse({**_ok(), **account, "SyncKey": _sync_key(self.world.acknowledged), "ContactList": rooms})

    async def _accepted(self, request: Request) -> Response:
        return JSONResponse({**_ok(), "MsgID": str(next(self._send_ids))})

    async def _logout(self, request: Request) -> Response:
        await self.end_login("1101")
        return Response(status_code=200)

    # Contacts

    async def _contacts(self, request: Request) -> Response:
        if self.login is None or self.faults.no_contact_list:
            return JSONResponse({**_ok(), "MemberCount": 0, "Seq": 0})
        contacts = self.world.contacts(self.login)
        return JSONResponse({**_ok(), "MemberCount": len(contacts), "MemberList": contacts, "Seq": 0})

    async def _some_contacts(self, request: Request) -> Response:
        login = self.login
        if login is None or self.faults.no_contact_list:
            return JSONResponse({**_ok(), "Count": 0})
        asked = [one["UserName"] for one in (await _body(request)).get("List", [])]
        found = [contact for contact in (self.world.wanted(user_name, login) for user_name in asked) if contact is not None]
        return JSONResponse({**_ok(), "Count": len(found), "ContactList": found})

    async def _befriend(self, request: Request) -> Response:
        login = await self._login_of(request)
        for wanted in (await _body(request)).get("VerifyUserList", []):
            name = login.name_of(wanted["Value"]) if login else None
            if name and wanted["VerifyUserTicket"] and name not in self.world.friends:
                self.world.friends.append(name)
                await self._happen(name, "", None)
        return JSONResponse(_ok())

    # Hearing and speaking

    async def _check(self, request: Request) -> Response:
        key = _key_of(request.query_params.get("synckey", ""))
        self.world.acknowledged = max(self.world.acknowledged, key)
        sid = request.query_params.get("sid")
        try:
            async with asyncio.timeout(self.faults.hold_s), self._news:
                await self._news.wait_for(lambda: self._retcode(sid) != "0" or self.faults.sync_ret or self.world.newest > key)
        except TimeoutError:
            pass
        selector = "2" if self.world.newest > key or self.faults.sync_ret else "0"
        if self.faults.wrong_spacing:
            return script(f'window.synccheck = {{ retcode: "{self._retcode(sid)}", selector: "{selector}" }}')
        return script(f'window.synccheck={{retcode:"{self._retcode(sid)}",selector:"{selector}"}}')

    async def _sync(self, request: Request) -> Response:
        body = await _body(request)
        login = self.login
        ret = self.faults.sync_ret or int(self._retcode(body["BaseRequest"].get("Sid")))
        if ret or login is None:
            return JSONResponse({"BaseResponse": {"Ret": ret or 1101, "ErrMsg": ""}, "AddMsgList": [], "ModContactList": []})
        key = int(body["SyncKey"]["List"][0]["Val"])
        self.world.acknowledged = max(self.world.acknowledged, key)
        news = [entry for entry in self.world.log if entry.number > key]
        messages = [self.world.wire(entry, login) for entry in news if entry.raw is not None]
        changed = [self._changed(chat, login) for chat in dict.fromkeys(entry.chat for entry in news if entry.raw is None)]
        keys = {"SyncKey": _sync_key(self.world.newest), "SyncCheckKey": _sync_key(self.world.newest)}
        lists = {"AddMsgCount": len(messages), "AddMsgList": messages, "ModContactCount": len(changed), "ModContactList": changed}
        return JSONResponse({**_ok(), **lists, **keys, "ContinueFlag": 0})

    async def _send(self, request: Request) -> Response:
        body = await _body(request)
        login = await self._login_of(request)
        await asyncio.sleep(self.faults.send_delay_s)
        ret = self.faults.send_ret or (0 if login else 1101)
        message = body["Msg"]
        chat = login.name_of(message["ToUserName"]) if login else None
        if ret or chat is None or login is None:
            return JSONResponse({"BaseResponse": {"Ret": ret or -1, "ErrMsg": ""}, "MsgID": "", "LocalID": ""})
        raw = {**self.world.message(wire_text(message["Content"])), "MsgId": str(next(self._send_ids))}
        await self._happen(chat, "", raw)
        await self.show(Shown(chat=chat, text=message["Content"], notified=self._called(chat, message["Content"])))
        if self.faults.use_up("drop_sends"):
            return await _cut(request)
        return JSONResponse({**_ok(), "MsgID": raw["MsgId"], "LocalID": str(message["LocalID"])})

    # Inside

    def _faulty(self, page: Handler) -> Handler:
        async def serve(request: Request) -> Response:
            self.calls[request.url.path.rsplit("/", 1)[-1]] += 1
            if self.faults.use_up("drop_calls"):
                return await _cut(request)
            if self.faults.use_up("bad_gateway"):
                return HTMLResponse("<html><h1>502 Bad Gateway</h1></html>", status_code=502)
            return await page(request)

        return serve

    async def _happen(self, chat: str, author: str, raw: Mapping[str, object] | None) -> None:
        self.world.append(chat, author, raw)
        await self._wake()

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _login_of(self, request: Request) -> Login | None:
        """The login that a POST belongs to, when it is still good."""
        sid = (await _body(request)).get("BaseRequest", {}).get("Sid")
        return self.login if self._retcode(sid) == "0" else None

    def _retcode(self, sid: str | None) -> str:
        if self.faults.retcode != "0":
            return self.faults.retcode
        return self.login.retcode if self.login is not None and self.login.sid == sid else "1101"

    def _changed(self, chat: str, login: Login) -> Json:
        return self.world.room(chat, login) if chat in self.world.groups else self.world.person(chat, login)

    def _called(self, chat: str, text: str) -> tuple[str, ...]:
        group = self.world.groups.get(chat)
        return tuple(name for name in group.members if f"@{self.world.nicks.get(name, name)}\u2005" in text) if group else ()

    def _bot_in(self, group: str | None) -> str:
        return (self.world.groups[group].bot_display if group else "") or self.world.account.nick

    def _id_of(self, name: str) -> str:
        return self.login.id_of(name) if self.login else ""


def _ok() -> Json:
    return {"BaseResponse": {"Ret": 0, "ErrMsg": ""}}


def _sync_key(number: int) -> Json:
    return {"Count": 1, "List": [{"Key": 1, "Val": number}]}


def _key_of(synckey: str) -> int:
    value = synckey.partition("|")[0].partition("_")[2]
    return int(value) if value.isdigit() else 0


async def _body(request: Request) -> Json:
    body: Json = json.loads(await request.body() or b"{}")
    return body


async def _cut(request: Request) -> Response:
    """Break the connection without an answer. Only the server's own cycle object knows the socket."""
    transport = getattr(getattr(request.receive, "__self__", None), "transport", None)
    if transport is not None:
        transport.abort()
        await asyncio.sleep(0.01)  # lets the server notice, so that it does not try to answer
    return Response()
