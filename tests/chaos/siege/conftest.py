"""Houses under siege: each worker process of the tests starts one per way of writing through, and attacks it."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.command.chaos.house import Ground, standing
from gateway.command.chaos.siege import Force, Siege, besieging

SEED = 20_261_123


@pytest.fixture(scope="session")
def siege_folder() -> Iterator[Path]:
    """Where the houses stand; removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="tallygate-siege-"))
    yield folder
    shutil.rmtree(folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def always(siege_folder: Path) -> AsyncIterator[Siege]:
    """Valkey writes its log through before it answers."""
    async for siege in besieged(Ground(folder=siege_folder / "always", fsync="always", lease_ms=500)):
        yield siege


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def everysec(siege_folder: Path) -> AsyncIterator[Siege]:
    """Valkey writes its log through once a second."""
    async for siege in besieged(Ground(folder=siege_folder / "everysec", fsync="everysec", lease_ms=500)):
        yield siege


async def besieged(ground: Ground) -> AsyncIterator[Siege]:
    """A siege that one task begins and ends, because a group of tasks wants it so."""
    standing_now: asyncio.Future[Siege] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep() -> None:
        async with (
            standing(ground) as house,
            besieging(house, force=Force(), chance=random.Random(SEED)) as siege,
        ):
            await siege.traffic.rest()
            standing_now.set_result(siege)
            await over.wait()

    keeping = asyncio.create_task(keep())
    await asyncio.wait([standing_now, keeping], return_when=asyncio.FIRST_COMPLETED)
    if keeping.done():
        await keeping
    yield standing_now.result()
    over.set()
    await keeping
