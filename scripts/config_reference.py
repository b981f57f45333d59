"""Writes the tables of docs/*/reference/config.md from the models in gateway/config.py. Run: .venv/bin/python scripts/config_reference.py

The Chinese sentences stand in config_reference.zh.json under the English ones; a new or changed sentence stays English on the Chinese
page, and fails the test, until it is translated there.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from gateway import config  # noqa: E402

PAGES = {lang: TOP / "docs" / lang / "reference" / "config.md" for lang in ("en", "zh")}
TRANSLATIONS = Path(__file__).with_suffix(".zh.json")
HEADS = {"en": "| key | value | default | meaning |", "zh": "| 键 | 值 | 默认 | 含义 |"}
WORDS = {
    "en": {
        "string": "text",
        "boolean": "true, false",
        "integer": "whole number",
        "number": "number",
        "object": "object",
        "array": "list of",
    },
    "zh": {"string": "文字", "boolean": "true, false", "integer": "整数", "number": "数字", "object": "对象", "array": "列表："},
}
REQUIRED = {"en": "required", "zh": "必填"}
_BLOCK = re.compile(r"(<!-- keys: (?P<section>[\w.]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of the configuration, as a row of a table."""

    name: str
    schema: Mapping[str, Any]
    required: bool
    meaning: str

    def row(self, lang: str, meaning: str) -> str:
        default = REQUIRED[lang] if self.required else f"`{json.dumps(self.schema.get('default'), ensure_ascii=False)}`"
        return f"| `{self.name}` | {values(self.schema, WORDS[lang])} | {default} | {meaning} |"


def sections() -> dict[str, list[Key]]:
    """Every section by the name that the pages use, with its keys."""
    found = {f"channels.{kind(model)}": list(keys(model)) for model in members(config.AnyChannel)}
    found |= {f"backends.{kind(model)}": list(keys(model)) for model in members(config.AnyBackend)}
    for name, field in config.Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = list(keys(field.annotation))
    found["top"] = [key for key in keys(config.Config) if "." not in key.name and key.meaning]
    return found


def members(union: Any) -> tuple[type[BaseModel], ...]:
    return get_args(get_args(union)[0])


def kind(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0])


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys of a model, those of inner sections as `group.allow`."""
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
            continue
        shape = dict(schema["properties"][name])
        if field.default_factory is not None:
            shape["default"] = {}
        meaning = field.description or ("Always this." if name == "kind" else "")
        yield Key(name=f"{prefix}{name}", schema=shape, required=field.is_required(), meaning=meaning.replace("|", "/"))


def values(schema: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """What may stand there, in words: `"zh"`, `"en"` or `text` or `number, null`."""
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return ", ".join(values(option, words) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"{words['array']} {values(schema['items'], words)}".replace("： ", "：")
    if schema.get("type") == "null":
        return "`null`"
    return words[schema.get("type", "object")]


def written(page: str, lang: str) -> str:
    """The page with its tables as the models are now."""
    words = {} if lang == "en" else json.loads(TRANSLATIONS.read_text(encoding="utf-8"))
    tables = sections()

    def table(block: re.Match[str]) -> str:
        rows = [key.row(lang, words.get(key.meaning, key.meaning)) for key in tables[block["section"]]]
        return "\n".join([block[1] + HEADS[lang], "|---|---|---|---|", *rows, block[3]])

    return _BLOCK.sub(table, page)


def sections_on(page: str) -> set[str]:
    """Names of the sections that have a table on the page."""
    return {block["section"] for block in _BLOCK.finditer(page)}


if __name__ == "__main__":
    for lang, path in PAGES.items():
        path.write_text(written(path.read_text(encoding="utf-8"), lang), encoding="utf-8")
