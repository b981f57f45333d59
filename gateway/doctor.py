"""Asks every part for its check-up."""

from __future__ import annotations

from contextlib import AsyncExitStack

from gateway.checkup import Finding
from gateway.clock import Clock, SystemClock
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.wiring import build


async def examine(config: Config, clock: Clock | None = None) -> list[Finding]:
    """Findings of the store, every channel and every backend; nothing is sent to a person."""
    findings = [Finding("the configuration is valid", True)]
    async with AsyncExitStack() as stack:
        try:
            house = await build(config, stack=stack, clock=clock or SystemClock(), show_qr=lambda text: None, alone=False)
            await house.store.ping()
        except GatewayError as error:
            return [*findings, Finding(f"opening: {type(error).__name__}", False, str(error))]
        findings.append(Finding(f"the store {config.store.url.split('://')[0]} can be written", True))
        for channel in house.channels.values():
            findings += await channel.checkup()
        findings += await house.backend.checkup()
    return findings
