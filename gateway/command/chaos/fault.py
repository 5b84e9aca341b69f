"""The faults: each injures a house, waits, and takes away what it brought. Nothing here repairs anything.

A process is killed as a crash kills it (SIGKILL), or stopped (SIGSTOP) for longer than leases and hang limits and
then continued, so that it wakes up believing that no time has passed. A supervisor that was killed is started
again, as an init system would; all others are its own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec

from gateway.command.chaos.family import with_descendants
from gateway.command.chaos.house import SUPERVISOR, House, until

_CUTS: Final = 3
_LATE_MS: Final = 40  # later than any decision may be


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a fault befalls. `felt` counts the callers who got no decision; `wait_s` is longer than every lease."""

    house: House
    chance: random.Random
    felt: Callable[[], int]
    wait_s: float


Fault = Callable[[Scene], Awaitable[float]]
"""What it returns is when the injury ended, on the loop's clock."""


async def _kill(scene: Scene, *, name: str) -> float:
    os.kill(await _victim(scene, name), signal.SIGKILL)
    killed_s = _now_s()
    if name == SUPERVISOR:
        await scene.house.bury_supervisor()
        await scene.house.stand()
    return killed_s


async def _stop(scene: Scene, *, name: str) -> float:
    pid = await _victim(scene, name)
    stopped = [pid] if name == SUPERVISOR else with_descendants(pid)
    _signal_all(stopped, signal.SIGSTOP)
    try:
        await asyncio.sleep(scene.wait_s)
    finally:
        _signal_all(stopped, signal.SIGCONT)
    return _now_s()


async def _fill_disk(scene: Scene) -> float:
    """Full for a while after the first caller has felt it."""
    before = scene.felt()
    scene.house.disk.fill(await _victim(scene, "valkey"))
    try:
        await until(lambda: scene.felt() > before, "callers feel that the disk is full")
        await asyncio.sleep(scene.wait_s / 2)
    finally:
        scene.house.disk.clear(scene.house.pids("valkey"))
    return _now_s()


async def _disturb(scene: Scene, *, order: str) -> float:
    await scene.house.order(order)
    try:
        await asyncio.sleep(scene.wait_s)
    finally:
        await scene.house.order("flow")
    return _now_s()


async def _cut(scene: Scene) -> float:
    for _ in range(_CUTS):
        await scene.house.order("cut")
        await asyncio.sleep(scene.wait_s / _CUTS)
    await scene.house.order("flow")
    return _now_s()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _victim(scene: Scene, name: str) -> int:
    """One of those who work under the name, once there is one."""
    await until(lambda: bool(scene.house.pids(name)), f"there is a {name}")
    return scene.chance.choice(scene.house.pids(name))


def _signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


_WORKERS: Final = ("gateway", "flusher", "billing", "valkey", "postgres", SUPERVISOR)

FAULTS: Final[Mapping[str, Fault]] = MappingProxyType(
    {
        **{f"kill {name}": partial(_kill, name=name) for name in _WORKERS},
        **{f"stop {name}": partial(_stop, name=name) for name in _WORKERS},
        "full disk": _fill_disk,
        "stalled network": partial(_disturb, order="stall"),
        "slow network": partial(_disturb, order=f"delay {_LATE_MS}"),
        "cut network": _cut,
    }
)
