"""A NoneBot2 echo bot: FastAPI driver, a minimal adapter for plain official-account XML, one matcher. Nothing kept, no crypto."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from xml.etree import ElementTree

import nonebot
from nonebot.adapters import Adapter as BaseAdapter
from nonebot.adapters import Bot as BaseBot
from nonebot.adapters import Event as BaseEvent
from nonebot.adapters import Message as BaseMessage
from nonebot.adapters import MessageSegment as BaseSegment
from nonebot.drivers import URL, ASGIMixin, HTTPServerSetup, Request, Response
from nonebot.message import handle_event


class Segment(BaseSegment["Message"]):
    @classmethod
    def get_message_class(cls) -> type[Message]:
        return Message

    def __str__(self) -> str:
        return str(self.data["text"])

    def is_text(self) -> bool:
        return True


class Message(BaseMessage[Segment]):
    @classmethod
    def get_segment_class(cls) -> type[Segment]:
        return Segment

    @staticmethod
    def _construct(msg: str):
        yield Segment("text", {"text": msg})


class Event(BaseEvent):
    user: str
    account: str
    text: str

    def get_type(self) -> str:
        return "message"

    def get_event_name(self) -> str:
        return "message.text"

    def get_event_description(self) -> str:
        return self.text

    def get_user_id(self) -> str:
        return self.user

    def get_session_id(self) -> str:
        return self.user

    def get_message(self) -> Message:
        return Message(self.text)

    def is_tome(self) -> bool:
        return True


class Bot(BaseBot):
    waiting: dict[int, asyncio.Future[str]] = {}

    async def send(self, event: BaseEvent, message: Any, **kwargs: Any) -> Any:
        self.waiting[id(event)].set_result(str(message))


class Adapter(BaseAdapter):
    def __init__(self, driver: Any, **kwargs: Any) -> None:
        super().__init__(driver, **kwargs)
        self.bot = Bot(self, "bench")
        assert isinstance(driver, ASGIMixin)
        self.setup_http_server(HTTPServerSetup(URL("/official_account/official"), "POST", "callback", self.callback))
        self.on_ready(lambda: self.bot_connect(self.bot))

    @classmethod
    def get_name(cls) -> str:
        return "bench"

    async def _call_api(self, bot: BaseBot, api: str, **data: Any) -> Any:
        return None

    async def callback(self, request: Request) -> Response:
        message = ElementTree.fromstring(request.content)
        event = Event(user=message.findtext("FromUserName"), account=message.findtext("ToUserName"), text=message.findtext("Content"))
        reply = self.bot.waiting[id(event)] = asyncio.get_running_loop().create_future()
        await handle_event(self.bot, event)
        del self.bot.waiting[id(event)]
        xml = (
            f"<xml><ToUserName><![CDATA[{event.user}]]></ToUserName><FromUserName><![CDATA[{event.account}]]></FromUserName>"
            f"<CreateTime>{int(time.time())}</CreateTime><MsgType><![CDATA[text]]></MsgType>"
            f"<Content><![CDATA[{await reply}]]></Content></xml>"
        )
        return Response(200, headers={"Content-Type": "text/xml"}, content=xml)


nonebot.init(driver="~fastapi", host="127.0.0.1", port=int(sys.argv[1]), log_level="WARNING", fastapi_openapi_url=None)
nonebot.get_driver().register_adapter(Adapter)
echo = nonebot.on_message()


@echo.handle()
async def _(event: BaseEvent) -> None:
    await echo.finish(event.get_message())


if __name__ == "__main__":
    nonebot.run()
