"""One exchange with the simulated model: the request as recorded, and the answer as written, whole or streamed, with its faults."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive, Send

from gateway.simulators.openai_faults import REFUSALS, OpenAIFaults, error_body

CREATED = 1_767_571_200


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request to the completions path."""

    body: dict[str, Any]
    headers: dict[str, str]
    """Without secrets."""
    disconnected: bool = False
    """The client went away before the answer was complete."""
    finished: bool = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", []))

    @property
    def question(self) -> str:
        said = [message.get("content") for message in self.messages if message.get("role") == "user"]
        return words_of(said[-1]) if said else ""


class Gone(Exception):
    """The client disconnected."""


@dataclass(slots=True)
class Call:
    """One exchange: its request and the two ends of its connection."""

    asked: Asked
    receive: Receive
    send: Send
    id: str
    faults: OpenAIFaults
    fault: str

    async def pause(self, seconds: float | None) -> None:
        """Wait, None: for ever; raises Gone when the client leaves."""
        try:
            async with asyncio.timeout(seconds):
                while (await self.receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return
        raise Gone

    async def start(self, status: int, content_type: bytes, *headers: tuple[bytes, bytes]) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type), *headers]})

    async def piece(self, body: bytes, *, last: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": not last})

    async def whole(self, status: int, body: bytes, content_type: bytes = b"application/json", *headers: tuple[bytes, bytes]) -> None:
        await self.start(status, content_type, (b"content-length", str(len(body)).encode()), *headers)
        await self.piece(body, last=True)


async def refuse(call: Call, refusal: str) -> None:
    wait = call.faults.retry_after_s
    headers = [(b"retry-after", f"{wait:g}".encode())] if wait is not None and refusal in ("rate_limited", "quota", "overloaded") else []
    await call.whole(REFUSALS[refusal][0], json.dumps(error_body(refusal)).encode(), b"application/json", *headers)


async def answer_whole(call: Call, text: str) -> None:
    if call.faults.first_chunk_delay_s:
        await call.pause(call.faults.first_chunk_delay_s)
    message = {"role": "assistant", "content": text, **_reasoning(call)}
    body: dict[str, Any] = {"choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(call), "logprobs": None}]}
    if call.fault != "bare":
        body |= {
            "id": call.id,
            "object": "chat.completion",
            "created": CREATED,
            "model": call.asked.body["model"],
            "usage": _usage(call, text),
        }
    encoded = json.dumps(body).encode()
    if call.fault == "broken_json":
        encoded = encoded[: len(encoded) // 2]
    if call.fault == "cut":
        await call.start(200, b"application/json", (b"content-length", str(len(encoded)).encode()))
        return await call.piece(encoded[: len(encoded) // 2])
    return await call.whole(200, encoded)


async def answer_in_stream(call: Call, text: str) -> None:
    await call.start(200, b"text/event-stream; charset=utf-8", (b"cache-control", b"no-cache"))
    if call.faults.first_chunk_delay_s:
        await call.pause(call.faults.first_chunk_delay_s)
    head = _chunk_head(call)
    for name, thought in _reasoning(call).items():
        await call.piece(_chunk(head, {name: thought}))
    pieces = _cut(text, call.faults.chunks)
    strike_at = min(call.faults.after_chunks, len(pieces) - 1)
    for number, piece in enumerate(pieces):
        if number == strike_at and not await _strike(call):
            return
        if number and call.faults.chunk_delay_s:
            await call.pause(call.faults.chunk_delay_s)
        delta = json.dumps(piece)
        await call.piece(f'{head}"choices":[{{"index":0,"delta":{{"content":{delta}}},"finish_reason":null}}]}}\n\n'.encode())
    await _end_stream(call, head, text)


async def _strike(call: Call) -> bool:
    """Let a fault in mid-stream happen; False when the answer ends here."""
    if call.fault == "stall":
        await call.pause(None)
    if call.fault == "truncated":
        await call.piece(b"", last=True)
    if call.fault == "error_in_stream":
        await call.piece(
            b'data: {"error":{"message":"The server had an error while processing your request.","type":"server_error"}}\n\n', last=True
        )
    if call.fault == "broken_json":
        await call.piece(b'data: {"id":"chatcmpl-sim","choices":[{"delta":{"conte\n\ndata: [DONE]\n\n', last=True)
    return call.fault not in ("truncated", "error_in_stream", "broken_json", "cut")


async def _end_stream(call: Call, head: str, text: str) -> None:
    end = _chunk(head, {}, finish_reason=_finish_reason(call))
    if call.faults.usage and (call.asked.body.get("stream_options") or {}).get("include_usage"):
        end += f'{head}"choices":[],"usage":{json.dumps(_usage(call, text))}}}\n\n'.encode()
    await call.piece(end + b"data: [DONE]\n\n", last=True)


def _chunk_head(call: Call) -> str:
    if call.fault == "bare":
        return "data: {"
    model = json.dumps(call.asked.body["model"])
    return f'data: {{"id":"{call.id}","object":"chat.completion.chunk","created":{CREATED},"model":{model},'


def _chunk(head: str, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f'{head}"choices":[{json.dumps(choice)}]}}\n\n'.encode()


def _finish_reason(call: Call) -> str:
    return call.fault if call.fault in ("length", "content_filter") else "stop"


def _reasoning(call: Call) -> dict[str, str]:
    thought = call.faults.reasoning or ("Let me think." if call.fault == "reasoning_only" else "")
    return {call.faults.reasoning_field: thought} if thought else {}


def _usage(call: Call, text: str) -> dict[str, int]:
    asked = sum(len(words_of(message.get("content"))) for message in call.asked.messages)
    return {"prompt_tokens": asked, "completion_tokens": len(text), "total_tokens": asked + len(text)}


def _cut(text: str, pieces: int) -> list[str]:
    step = max(1, -(-len(text) // max(1, pieces)))
    return [text[start : start + step] for start in range(0, len(text), step)]


def words_of(content: object) -> str:
    """The text of a message's content: a string or a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""
