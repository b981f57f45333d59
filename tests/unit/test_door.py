"""`./run`, the lock files, the gate and the image: what a new user meets first."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
LOCKS = ["requirements.txt", "requirements-dev.txt", "requirements-local.txt"]
TOOLS = ["sh", "dirname", "cmp", "cp", "rm", "mkdir", "cat", "id"]

#: Stands for the environment's Python: lists what it was asked to run, and answers `-IS` (does the environment work?) with yes.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*--version*) echo "Python 3.11.99" ;;
-IS*) exit 0 ;;
*pip*install*) echo "pip: $*" >&2; exit ${PIP_ENDS:-0} ;;
-m\\ venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
-m\\ gateway*) printf '<%s>' "$@"; exit ${GATEWAY_ENDS:-0} ;;
esac
"""


class Checkout:
    """A folder with `run` in it and a machine that has only a shell, a few tools and perhaps a Python."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "clone of it"
        self.tools = folder / "bin"
        for made in (self.top, self.tools):
            made.mkdir()
        shutil.copy(TOP / "run", self.top)
        (self.top / "requirements.txt").write_text("a==1 --hash=sha256:0\n")
        for tool in TOOLS:
            self.tools.joinpath(tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool} here"))

    def with_python(self) -> Checkout:
        python = self.tools / "python3"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        return self

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.top / "run"), *arguments],
            env={"PATH": str(self.tools), **environment},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_without_a_configuration_the_demo_starts(checkout: Checkout) -> None:
    assert checkout.with_python().run().stdout == "<-m><gateway><demo>"


def test_with_a_configuration_the_gateway_starts(checkout: Checkout) -> None:
    (checkout.top / "config.json").write_text("{}")

    assert checkout.with_python().run().stdout == "<-m><gateway><run>"


def test_arguments_and_exit_code_pass_through_untouched(checkout: Checkout) -> None:
    done = checkout.with_python().run("why", "a message $id", "", GATEWAY_ENDS="2")

    assert done.stdout == "<-m><gateway><why><a message $id><>"
    assert done.returncode == 2


def test_packages_are_installed_once_and_again_when_the_lock_changed(checkout: Checkout) -> None:
    first = checkout.with_python().run("demo")
    second = checkout.run("demo")
    (checkout.top / "requirements.txt").write_text("a==2 --hash=sha256:1\n")
    third = checkout.run("demo")

    assert ["--require-hashes -r requirements.txt" in done.stderr for done in (first, second, third)] == [True, False, True]


def test_a_failed_install_says_why_and_is_tried_again(checkout: Checkout) -> None:
    failed = checkout.with_python().run("demo", PIP_ENDS="1")
    again = checkout.run("demo")

    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "could not install requirements.txt" in failed.stderr
    assert "PIP_INDEX_URL" in failed.stderr
    assert again.stdout == "<-m><gateway><demo>"


def test_a_machine_without_python_is_told_what_to_do(checkout: Checkout) -> None:
    done = checkout.run("demo")

    assert done.returncode == 1
    assert "no Python 3.11 or newer found" in done.stderr
    assert "apt-get install" in done.stderr


def test_a_python_that_was_named_and_does_not_work_is_named_in_the_error(checkout: Checkout) -> None:
    done = checkout.with_python().run("demo", PYTHON="/nowhere/python")

    assert done.returncode == 1
    assert "PYTHON is set to /nowhere/python" in done.stderr


def test_an_environment_of_another_python_is_made_anew(checkout: Checkout) -> None:
    broken = checkout.top / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)

    assert checkout.with_python().run("demo").stdout == "<-m><gateway><demo>"


@pytest.mark.parametrize("checks", [0, 1])
@pytest.mark.parametrize("tests", [0, 3])
def test_the_gate_fails_when_either_half_fails(tmp_path: Path, checks: int, tests: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(TOP / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "run").write_text(f'#!/bin/sh\n[ "$1" = check ] && exit {checks}\nexit {tests}\n')
    (tmp_path / "run").chmod(0o755)

    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode == 0) == (checks == tests == 0)
    assert ("FAILED" in done.stdout) == (done.returncode != 0)


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_a_hash_and_no_index_is_named(name: str) -> None:
    text = (TOP / name).read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"(?m)^(?=[a-z])", text) if "==" in entry]

    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"https?://|file://|--(?:extra-)?index|--find-links", text) == []


def test_tests_run_on_the_versions_that_users_run() -> None:
    users, ours = (set(re.findall(r"(?m)^([a-z0-9._-]+(?:\[.*\])?==\S+)", (TOP / name).read_text())) for name in LOCKS[:2])

    assert users - ours == set()


@pytest.mark.parametrize("name", LOCKS)
def test_every_named_requirement_is_locked(name: str) -> None:
    wanted = re.findall(r"(?m)^([A-Za-z][\w.-]*)", (TOP / name).with_suffix(".in").read_text(encoding="utf-8"))
    locked = re.findall(r"(?m)^([a-z][\w.-]*)", (TOP / name).read_text(encoding="utf-8"))

    assert {name.lower().replace("_", "-") for name in wanted} - set(locked) == set()


def test_the_dockerfile_pleases_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.fail("hadolint is missing") if "CI" in os.environ else pytest.skip("hadolint is not installed")

    done = subprocess.run([hadolint, str(TOP / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False)

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_the_image_runs_as_nobody_special_and_says_how_it_is() -> None:
    last_stage = (TOP / "Dockerfile").read_text(encoding="utf-8").rpartition("\nFROM ")[2]

    assert re.search(r"(?m)^USER \d+:\d+$", last_stage)
    assert re.search(r"(?m)^HEALTHCHECK .*CMD \[", last_stage)
    assert "STOPSIGNAL SIGTERM" in last_stage
    assert "COPY . " not in last_stage
