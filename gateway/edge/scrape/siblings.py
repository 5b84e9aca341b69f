"""The workers of one gateway, as each of them sees the others: sockets in the run folder.

Each worker serves its own metrics on `gateway-<port>-<index>.sock` in `run_dir`. Whoever is scraped asks all
sockets of its port. A worker that does not answer in time is told as `tallygate_worker_up{worker="N"} 0`, and so
is a socket whose worker is gone.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector

from billing_core.errors import ConfigurationError

_PATIENCE_S = 0.5
_LONGEST_PATH = 107
_UP = "# HELP tallygate_worker_up Whether the worker told its metrics.\n# TYPE tallygate_worker_up gauge\n"


def socket_path(run_dir: str, port: int, *, index: int) -> Path:
    """Where a worker tells its metrics.

    Raises: ConfigurationError where the kernel would not take the path.
    """
    path = Path(run_dir) / f"gateway-{port}-{index}.sock"
    if len(str(path).encode()) > _LONGEST_PATH:
        raise ConfigurationError(f"run_dir: {run_dir} is too long for a unix socket", field="run_dir")
    return path


async def pages_of_siblings(run_dir: str, port: int, *, without: int) -> dict[str, str]:
    """Worker -> its page, of all workers but one."""
    paths = await asyncio.to_thread(_sockets, run_dir, port)
    found = {path.stem.rpartition("-")[2]: path for path in paths}
    found.pop(str(without), None)
    pages = await asyncio.gather(*(_page(path) for path in found.values()))
    return dict(zip(found, pages, strict=True))


def up(page: str) -> str:
    """A page of a worker that answers."""
    return f"{page}{_UP}tallygate_worker_up 1\n"


def _sockets(run_dir: str, port: int) -> list[Path]:
    return sorted(Path(run_dir).glob(f"gateway-{port}-*.sock"))


async def _page(path: Path) -> str:
    try:
        async with (
            ClientSession(connector=UnixConnector(str(path)), timeout=ClientTimeout(total=_PATIENCE_S)) as session,
            session.get("http://worker/metrics") as response,
        ):
            return await response.text()
    except (ClientError, OSError, TimeoutError):
        return f"{_UP}tallygate_worker_up 0\n"
