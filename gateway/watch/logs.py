"""Log lines for people or for machines, with every known secret taken out."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TextIO

MASK = "***"
#: Things that are secrets wherever they stand, also when they were not known at start.
_SECRET_SHAPES = re.compile(
    r"(?i)((?:access_token|accesstoken|ticket|secret|client_secret|clientsecret|api_key|apikey|echostr|session|token)=)[^&\s\"']+"
    r"|(bearer\s+)[A-Za-z0-9._~+/=-]{6,}|\b(sk-)[A-Za-z0-9_-]{6,}"
)
#: These log whole URLs, with tokens in them, at INFO.
_TALKATIVE = ("httpx2", "httpx", "httpcore", "httpcore2", "websockets", "uvicorn", "urllib3", "openai", "aiohttp", "itchat", "asyncio")
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName", "color_message"}


class Redactor(logging.Filter):
    """Replaces known secrets and things that look like one, in the message and in the traceback."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def clean(self, text: str) -> str:
        """`text` without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _SECRET_SHAPES.sub(lambda found: f"{found[1] or found[2] or found[3]}{MASK}", text)

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = self.clean(record.getMessage())
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = self.clean(logging.Formatter().formatException(record.exc_info))
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line; the `extra` fields of a call become keys."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key, value in record.__dict__.items() if key not in _STANDARD},
        }
        if record.exc_text:
            row["traceback"] = record.exc_text
        return json.dumps(row, ensure_ascii=False, default=str)


def set_up_logging(*, level: str, as_json: bool, secrets: Iterable[str], stream: TextIO = sys.stderr) -> None:
    """Replace the root logger's handlers by one that redacts."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(Redactor(secrets))
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if as_json else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
