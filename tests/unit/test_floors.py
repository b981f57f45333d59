"""The law of the house: a file imports only from lower floors and from its own room, and nothing goes in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
FLOORS = {
    0: {"gateway", "gateway.messages", "gateway.prompts", "gateway.errors", "gateway.clock", "gateway.wording", "gateway.checkup"},
    1: {"gateway.sessions"},
    2: {"gateway.channels.base", "gateway.backends.base", "gateway.stores.base"},
    3: {"gateway.channels", "gateway.backends", "gateway.stores", "gateway.rendering", "gateway.watch", "gateway.commands"}
    | {"gateway.lanes", "gateway.parked", "gateway.testing", "gateway.simulators"},
    4: {"gateway.intake", "gateway.dispatch", "gateway.answering", "gateway.delivery", "gateway.expiry"}
    | {"gateway.lineup", "gateway.merging", "gateway.queue_notices"},
    5: {"gateway.config", "gateway.reading", "gateway.building", "gateway.wiring", "gateway.app", "gateway.doctor"},
    6: {"gateway.cli", "gateway.__main__", "gateway.demo"},
}
SHARED_FLOORS = {4, 5, 6}
"""Floors that are one room: path, house and door."""
WORKSHOPS = ("gateway.testing", "gateway.simulators")
"""Only the door may look at them."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package stands under its own name."""
    files = sorted((TOP / "gateway").rglob("*.py"))
    return {".".join(file.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def imports(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """What `file` imports from the package, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write the import in full"
            for alias in node.names:
                target = next((name for name in (f"{node.module}.{alias.name}", node.module) if name in known), None)
                yield from [target] if target else []


def floor(module: str) -> int | None:
    """The floor of a module: its own when it is named above, otherwise that of the nearest package around it."""
    while module:
        found = next((number for number, names in FLOORS.items() if module in names and module != "gateway"), None)
        if found is not None:
            return found
        module = module.rpartition(".")[0]
    return None


def allowed(source: str, target: str) -> bool:
    if source.startswith(WORKSHOPS) or target.startswith(WORKSHOPS):
        return floor(source) == 6 or same_room(source, target) or (floor(target) < 4 and not target.startswith(WORKSHOPS))
    return floor(target) < floor(source) or same_room(source, target)


def same_room(source: str, target: str) -> bool:
    """Two modules of one folder, or one folder inside the other: `channels/dingtalk` knows `channels`, not `channels/wechat`."""
    if floor(source) in SHARED_FLOORS | {0, 1} and floor(source) == floor(target):
        return True
    one, other = folder(source), folder(target)
    return "gateway" not in (one, other) and (f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."))


def folder(module: str) -> str:
    return module if TOP.joinpath(*module.split(".")).is_dir() else module.rpartition(".")[0]


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(file, known)) - {name, "gateway"} for name, file in known.items()}


def test_every_file_has_a_floor() -> None:
    assert [name for name in modules() if name != "gateway" and floor(name) is None] == []


def test_no_import_points_up_or_into_a_foreign_room() -> None:
    arrows = [f"{source} -> {target}" for source, targets in graph().items() for target in targets if not allowed(source, target)]

    assert sorted(arrows) == []


def test_no_imports_go_in_a_circle() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
    else:
        circle = ""

    assert circle == ""


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("gateway.sessions.window", "gateway.stores.base"),
        ("gateway.channels.dingtalk.channel", "gateway.backends.echo"),
        ("gateway.channels.dingtalk.channel", "gateway.channels.wechat.parse"),
        ("gateway.lanes", "gateway.parked"),
        ("gateway.rendering.pieces", "gateway.delivery"),
        ("gateway.wiring", "gateway.simulators.base"),
        ("gateway.simulators.base", "gateway.dispatch"),
    ],
)
def test_the_law_forbids(source: str, target: str) -> None:
    assert not allowed(source, target)
