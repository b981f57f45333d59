"""The documentation says what is true: every key, command, error and path is there, every example loads, every link leads somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import json5
import pytest

from gateway import errors
from gateway.cli import main
from gateway.commands import COMMANDS
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.messages import OutcomeKind
from gateway.reading import parse_config, read_config
from gateway.stores.base import TurnState

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
LANGS = ("en", "zh")
READMES = {"en": TOP / "README.md", "zh": TOP / "README.zh-CN.md"}
PAGES = sorted(path.relative_to(DOCS / "en") for path in (DOCS / "en").rglob("*.md"))
ALL_PAGES = [*READMES.values(), *sorted(path for path in DOCS.rglob("*.md"))]
HELP = {"test", "check", "lock"}
"""Commands of `./run` itself."""


def page(lang: str, name: str) -> str:
    return (DOCS / lang / name).read_text(encoding="utf-8")


def shown(path: Path) -> str:
    return str(path.relative_to(TOP))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)


@pytest.fixture(scope="module")
def config_reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_reference", TOP / "scripts" / "config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["config_reference"] = module
    spec.loader.exec_module(module)
    return module


# Two languages


def test_both_languages_have_the_same_pages() -> None:
    assert sorted(path.relative_to(DOCS / "zh") for path in (DOCS / "zh").rglob("*.md")) == PAGES


@pytest.mark.parametrize("name", PAGES, ids=str)
def test_both_languages_have_the_same_sections(name: Path) -> None:
    levels = {lang: re.findall(r"(?m)^(#+) ", re.sub(r"(?ms)^```.*?^```", "", page(lang, str(name)))) for lang in LANGS}

    assert levels["en"] == levels["zh"]


@pytest.mark.parametrize("name", PAGES, ids=str)
def test_both_languages_show_the_same_examples(name: Path) -> None:
    for language in ("json", "python"):
        assert blocks(page("en", str(name)), language) == blocks(page("zh", str(name)), language)


def test_both_readmes_have_the_same_sections_and_commands() -> None:
    en, zh = (path.read_text(encoding="utf-8") for path in READMES.values())

    assert len(re.findall(r"(?m)^#+ ", en)) == len(re.findall(r"(?m)^#+ ", zh))
    assert commands_in(en) == commands_in(zh)
    assert len(en.splitlines()) <= 120


@pytest.mark.parametrize("path", ALL_PAGES, ids=shown)
def test_every_link_leads_somewhere(path: Path) -> None:
    text = re.sub(r"(?ms)^```.*?^```", "", path.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)

    assert [target for target in targets if "://" not in target and not (path.parent / target).exists()] == []


def test_every_page_is_on_the_shelves() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")

    assert [f"{lang}/{name}" for lang in LANGS for name in PAGES if f"({lang}/{name})" not in index] == []


# Configuration


@pytest.mark.parametrize("lang", LANGS)
def test_the_configuration_tables_are_those_of_the_models(lang: str, config_reference: ModuleType) -> None:
    text = page(lang, "reference/config.md")

    assert config_reference.sections_on(text) == set(config_reference.sections())
    assert text == config_reference.written(text, lang), "run: .venv/bin/python scripts/config_reference.py"


def test_every_key_is_explained_in_chinese(config_reference: ModuleType) -> None:
    rows = re.findall(r"(?m)^\| `([^`]+)` \| .* \| ([^|]*) \|$", page("zh", "reference/config.md"))

    assert [key for key, meaning in rows if not re.search("[\u3400-\u9fff]", meaning)] == []


def any_environment(text: str) -> defaultdict[str, str]:
    """Every variable that `text` mentions is set to something that looks right."""
    return defaultdict(str, {name: "x" * 43 for name in re.findall(r"\$\{(\w+)", text)})


CONFIGS = [
    pytest.param(example, id=f"{path.relative_to(TOP)}-{number}")
    for path in ALL_PAGES
    for number, example in enumerate(blocks(path.read_text(encoding="utf-8"), "json"))
    if set(json.loads(example)) <= set(Config.model_fields)
]


@pytest.mark.parametrize("example", CONFIGS)
def test_every_configuration_on_the_pages_loads(example: str) -> None:
    config = parse_config(json.loads(example), any_environment(example))

    assert config.channels or config.backends


def test_the_example_configuration_loads_as_it_is_and_with_everything_switched_on() -> None:
    path = TOP / "config.example.json"
    text = path.read_text(encoding="utf-8")

    read_config(path, {})
    everything = parse_config(_switched_on(text), any_environment(text))

    assert {section.kind for section in everything.channels.values()} >= {"wechat", "dingtalk", "official_account"}


def test_the_example_configuration_shows_every_key(config_reference: ModuleType) -> None:
    data = json5.loads((TOP / "config.example.json").read_text(encoding="utf-8"))

    missing = []
    for name, keys in config_reference.sections().items():
        section = _section(data, name)
        missing += [f"{name}.{key.name}" for key in keys if key.name != "enabled" and not _has(section, key.name)]
    assert missing == []


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    room, _, kind = name.partition(".")
    if not kind:
        return data if room == "top" else dict(data[room])
    return next((section for section in data[room].values() if isinstance(section, dict) and section["kind"] == kind), {})


def _has(section: dict[str, Any], key: str) -> bool:
    first, _, rest = key.partition(".")
    return first in section and (not rest or _has(section[first], rest))


def _switched_on(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json5.loads(text)
    for section in data["channels"].values():
        if isinstance(section, dict):
            section.update({"enabled": True} | ({"accept_ban_risk": True} if section["kind"] == "wechat" else {}))
    return data


# Commands


def cli_commands() -> set[str]:
    assert isinstance(main, click.Group)
    return set(main.commands)


@pytest.mark.parametrize("lang", LANGS)
def test_every_command_and_option_of_the_command_line_is_documented(lang: str) -> None:
    text = page(lang, "reference/command-line.md")
    assert isinstance(main, click.Group)

    missing = []
    for name, command in main.commands.items():
        row = re.search(rf"(?m)^\| `\./run {name}\b(.*)`", text)
        options = [option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts]
        missing += [f"{name} {option}" for option in options if row is None or option not in row[1]] if options else [] if row else [name]
    assert missing == []


def commands_in(text: str) -> list[str]:
    """What the text tells the reader to run: `./run why …` → why."""
    return re.findall(r"(?<![a-z,.] )\./run ([a-z][a-z-]+)", text)


@pytest.mark.parametrize("path", ALL_PAGES, ids=shown)
def test_no_page_names_a_command_that_does_not_exist(path: Path) -> None:
    assert set(commands_in(path.read_text(encoding="utf-8"))) - cli_commands() - HELP == set()


@pytest.mark.parametrize("lang", LANGS)
def test_every_chat_command_is_documented_with_all_its_names(lang: str) -> None:
    text = page(lang, "reference/chat-commands.md")

    missing = [name for command in COMMANDS for name in command.names if f"`/{name}`" not in text and f"`#{name}`" not in text]
    assert missing == []


# Outcomes, errors, paths


@pytest.mark.parametrize("lang", LANGS)
def test_every_outcome_state_and_error_is_explained(lang: str) -> None:
    text = page(lang, "reference/outcomes-and-errors.md")
    known = {item.__name__ for item in vars(errors).values() if isinstance(item, type) and issubclass(item, GatewayError)}
    words = {*OutcomeKind, *TurnState, *known} - {"GatewayError"}

    rows = re.findall(r"(?m)^\| `(\w+)` \|", text)
    assert sorted(set(rows)) == sorted(words)


@pytest.mark.parametrize("lang", LANGS)
def test_every_path_that_is_served_is_documented(lang: str) -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in sorted((TOP / "gateway").rglob("*.py")) if "simulators" not in path.parts
    )
    mounted = set(re.findall(r"""["'](/(?:healthz|readyz|metrics|api/[\w/]+|official_account/))""", sources))

    assert mounted >= {"/healthz", "/official_account/"}
    assert [path for path in mounted if path not in page(lang, "reference/http.md")] == []


@pytest.mark.parametrize("lang", LANGS)
def test_every_metric_is_documented(lang: str) -> None:
    sources = "".join((TOP / "gateway" / name).read_text(encoding="utf-8") for name in ("watch/metrics.py", "wiring.py"))
    metrics = set(re.findall(r'(?:Counter|Histogram|gauge)\(\s*"(gateway_\w+)"', sources))

    assert len(metrics) >= 6
    assert [name for name in metrics if f"`{name}" not in page(lang, "reference/http.md")] == []


# Changes


def test_every_change_is_one_sentence_of_a_known_kind() -> None:
    for path in sorted((TOP / "changes").glob("*.md")):
        if path.name == "README.md":
            continue
        assert re.fullmatch(r"[\w-]+\.(added|changed|fixed|removed|security)\.md", path.name), path.name
        text = path.read_text(encoding="utf-8").strip()
        assert text.endswith(".")
        assert "\n" not in text, f"{path.name} is more than one line"
