"""The commands an operator types. Heavy things are imported when a command needs them, so that `--help` comes at once."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway import __version__
from gateway.errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from gateway.app import Gateway
    from gateway.config import Config
    from gateway.stores.base import Store, TurnRecord

FINE, FAILED, WRONG = 0, 1, 2
_config_option = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("config.json"),
    show_default=True,
    help="The configuration file.",
)


class _Commands(click.Group):
    """Turns our errors into one clear text and the right exit code, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _complain("The configuration is wrong:", error)
            ctx.exit(WRONG)
        except GatewayError as error:
            _complain("", error)
            ctx.exit(FAILED)


def _complain(head: str, error: GatewayError) -> None:
    if head:
        click.echo(head, err=True)
    for line in str(error).splitlines():
        click.echo(f"  {line}" if head else line, err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gateway")
def main() -> None:
    """A chat gateway for WeChat and DingTalk: one config file, three channels, never loses a message, never answers twice."""


@main.command()
@_config_option
def run(config_path: Path) -> None:
    """Run the gateway until SIGTERM or Ctrl-C."""
    config = _read(config_path)
    _log(config)
    from gateway.app import Gateway

    sys.exit(_run(_serve(Gateway(config, show_qr=_show_on_stderr))))


def _run(work: Coroutine[Any, Any, int]) -> int:
    """On uvloop where there is one: it halves the cost of a message."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


async def _serve(gateway: Gateway) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with gateway.running():
        waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(gateway.finished.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    return FINE


@main.command("check-config")
@click.argument("path", type=click.Path(path_type=Path), default=Path("config.json"))
def check_config(path: Path) -> None:
    """Read and validate a configuration; name each wrong key."""
    config = _read(path)
    on = [f"{name} ({section.kind})" for name, section in config.channels.items() if section.enabled]
    click.echo(f"{path} is fine. Channels: {', '.join(on) or 'none'}. Answers come from: {', '.join(config.answering.chain)}.")


@main.command()
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(config_path: Path, as_json: bool) -> None:
    """Check credentials, clock, store and model, each with its repair."""
    from gateway.doctor import examine

    findings = asyncio.run(examine(_read(config_path)))
    if as_json:
        click.echo(json.dumps([{"what": f.what, "ok": f.ok, "repair": f.repair} for f in findings], ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.ok else 'BAD '} {finding.what}")
            if not finding.ok:
                click.echo(f"     → {finding.repair}")
    sys.exit(FINE if all(finding.ok for finding in findings) else FAILED)


@main.command()
@_config_option
def chat(config_path: Path) -> None:
    """Talk to the configured answer path in the terminal; nothing is kept."""
    from gateway.config import Config, Terminal

    config = _read(config_path) if config_path.exists() else Config()
    config = config.model_copy(
        update={
            "channels": {"terminal": Terminal(kind="terminal")},
            "store": config.store.model_copy(update={"url": "memory://"}),
            "http": config.http.model_copy(update={"port": 0, "host": "127.0.0.1"}),
            "logging": config.logging.model_copy(update={"level": "warning"}),
        }
    )
    _log(config)
    from gateway.app import Gateway

    sys.exit(_run(_serve(Gateway(config))))


@main.command("sign-in")
@click.argument("channel")
@_config_option
def sign_in(channel: str, config_path: Path) -> None:
    """Let a person sign in to a channel, e.g. scan a QR code; the gateway may go on running."""
    from contextlib import AsyncExitStack

    from gateway.clock import SystemClock
    from gateway.wiring import build

    config = _read(config_path)
    _log(config)
    if channel not in config.channels:
        raise ConfigError(f"there is no channel {channel!r}; known: {', '.join(config.channels) or 'none'}")

    async def work() -> str:
        async with AsyncExitStack() as stack:
            house = await build(config, stack=stack, clock=SystemClock(), show_qr=_show_on_stderr, alone=False)
            return await house.channels[channel].sign_in()

    click.echo(asyncio.run(work()))


@main.command()
@click.argument("message_id")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def why(message_id: str, config_path: Path, as_json: bool) -> None:
    """Tell the story of one message by its platform id."""

    async def find(store: Store) -> list[TurnRecord]:
        return await store.ledger.find(message_id)

    records = asyncio.run(_with_store(_read(config_path), find))
    if not records:
        raise GatewayError(f"no message {message_id} is in the ledger. `gateway turns` lists the latest ones.")
    _print_records(records, as_json, _story)


@main.command()
@_config_option
@click.option(
    "--state",
    default=None,
    help="Only turns with this outcome (answered, failed, unknown, …) or, unfinished, in this state (accepted, answering, showing).",
)
@click.option("--limit", default=50, show_default=True, help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as JSON.")
def turns(config_path: Path, state: str | None, limit: int, as_json: bool) -> None:
    """List the ledger: every message that was accepted, and how it ended."""
    from gateway.messages import OutcomeKind
    from gateway.stores.base import TurnState

    if state is not None and state not in {*TurnState, *OutcomeKind}:
        raise click.BadParameter(f"known: {', '.join([*TurnState, *OutcomeKind])}", param_hint="--state")

    async def latest(store: Store) -> list[TurnRecord]:
        outcome = state if state in set(OutcomeKind) else None
        in_state = TurnState(state) if state is not None and outcome is None else None
        return await store.ledger.latest(state=in_state, outcome=outcome, limit=limit)

    _print_records(asyncio.run(_with_store(_read(config_path), latest)), as_json, _line)


@main.command()
@click.argument("platform", type=click.Choice(["wechat", "ilink", "dingtalk", "official-account", "wecom-bot", "openai"]))
@click.option("--port", default=0, help="Port on loopback; 0 picks a free one.")
@click.option("--connect", default=None, help="official-account: the callback URL of the gateway to write to.")
def simulate(platform: str, port: int, connect: str | None) -> None:
    """Run a platform on loopback, with fault knobs over POST /_sim/faults."""
    from gateway.demo import simulator_for

    async def serve() -> None:
        simulator = simulator_for(platform, connect)
        async with simulator.running(port):
            click.echo(f"{platform} on {simulator.base_url} (POST /_sim/say, GET /_sim/shown, GET or POST /_sim/faults); Ctrl-C ends it.")
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await stop.wait()

    asyncio.run(serve())


@main.command()
@click.option("--script", is_flag=True, help="Play a fixed conversation on every channel, print it, and exit 0 if every answer came.")
def demo(script: bool) -> None:
    """Simulated WeChat, DingTalk and official account around a real gateway; no key, no account needed."""
    from gateway.demo import play

    sys.exit(asyncio.run(play(script=script)))


@main.command()
@_config_option
def healthcheck(config_path: Path) -> None:
    """Ask the running gateway's /healthz; for containers."""
    import urllib.error
    import urllib.request

    http = _read(config_path).http
    host = "127.0.0.1" if http.host in ("0.0.0.0", "::") else http.host  # noqa: S104 - compared, not bound
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{host}:{http.port}/healthz", timeout=5) as answer:
            healthy = answer.status == 200
    except (urllib.error.URLError, OSError) as error:
        raise GatewayError(f"the gateway does not answer on {host}:{http.port}: {error}") from error
    sys.exit(FINE if healthy else FAILED)


def _read(path: Path) -> Config:
    from gateway.reading import read_config

    return read_config(path)


def _log(config: Config) -> None:
    from gateway.watch.logs import set_up_logging

    set_up_logging(level=config.logging.level, as_json=config.logging.format == "json", secrets=_secrets(config))


def _secrets(value: object) -> Iterator[str]:
    from pydantic import BaseModel, SecretStr

    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _secrets(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _secrets(item)


async def _with_store(config: Config, ask: Callable[[Store], Coroutine[Any, Any, list[TurnRecord]]]) -> list[TurnRecord]:
    from gateway.building import open_store, store_path

    if config.store.url.startswith("sqlite:") and not store_path(config).exists():
        raise GatewayError(f"there is no ledger at {store_path(config)} yet: the gateway makes it when it first runs.")
    store = await open_store(config)
    try:
        return await ask(store)
    finally:
        await store.aclose()


def _show_on_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_records(records: list[TurnRecord], as_json: bool, shown: Callable[[TurnRecord], str]) -> None:
    if as_json:
        click.echo(json.dumps([_plain(record) for record in records], ensure_ascii=False, indent=2))
        return
    for record in records:
        click.echo(shown(record))
    if not records:
        click.echo("no turns")


def _plain(record: TurnRecord) -> dict[str, Any]:
    outcome = record.outcome
    return {
        "channel": record.key.channel,
        "account": record.key.account,
        "message": record.key.message,
        "state": record.state.value,
        "accepted_at": record.accepted_at.isoformat(),
        "answered_at": record.answered_at.isoformat() if record.answered_at else None,
        "closed_at": record.closed_at.isoformat() if record.closed_at else None,
        "answered_by": record.answered_by,
        "pieces": len(record.answer.pieces) if record.answer else 0,
        "shown": record.shown,
        "outcome": outcome.kind.value if outcome else None,
        "reason": outcome.reason if outcome else None,
        "detail": outcome.detail if outcome else None,
    }


def _line(record: TurnRecord) -> str:
    outcome = record.outcome
    end = f"{outcome.kind.value} {outcome.reason}" if outcome else record.state.value
    return f"{record.accepted_at:%Y-%m-%d %H:%M:%S}  {record.key.channel:<12} {record.key.message:<40} {end}"


def _story(record: TurnRecord) -> str:
    row = _plain(record)
    return "\n".join(
        [f"message {row.pop('message')}", *(f"  {name:<12} {value}" for name, value in row.items() if value not in (None, ""))]
    )
