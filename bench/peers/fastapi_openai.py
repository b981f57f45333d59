"""What most people write first: FastAPI, the openai SDK as it comes, streaming, nothing kept. Plain XML, no signature, no crypto."""

from __future__ import annotations

import sys
import time
from xml.etree import ElementTree

import uvicorn
from fastapi import FastAPI, Request, Response
from openai import AsyncOpenAI

app = FastAPI()
client = AsyncOpenAI(base_url=sys.argv[2], api_key="sk-simulated", max_retries=0)


@app.post("/official_account/official")
async def answer(request: Request) -> Response:
    message = ElementTree.fromstring(await request.body())
    question = message.findtext("Content") or ""
    stream = await client.chat.completions.create(model="sim-model", messages=[{"role": "user", "content": question}], stream=True)
    words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    xml = (
        f"<xml><ToUserName><![CDATA[{message.findtext('FromUserName')}]]></ToUserName>"
        f"<FromUserName><![CDATA[{message.findtext('ToUserName')}]]></FromUserName><CreateTime>{int(time.time())}</CreateTime>"
        f"<MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{''.join(words)}]]></Content></xml>"
    )
    return Response(xml, media_type="text/xml")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False)
