"""The library of all scripts on the servers of a projection; the gateway's link does the same for itself.

Here too an act whose function is missing was not run: the library is brought back and the act sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from billing_core.adapters.redis_client import NOT_NOW, execute
from lua.library import LISTING, is_absent, is_there_already, listed_names
from lua.loader import LIBRARY


def is_missed(reply: Any) -> bool:
    """Whether this reply says that the server does not have the library."""
    return isinstance(reply, ResponseError) and is_absent(reply)


async def furnish(server: Any) -> None:
    """See to it that the server has the library; who brings it takes older ones away.

    Raises: ResponseError where the server does not want it; what a server that is away makes its client raise.
    """
    pipe = server.pipeline(transaction=False)
    pipe.execute_command(" ".join(LISTING[:2]), *LISTING[2:])
    known = listed_names((await execute(pipe))[0])
    if LIBRARY.name in known or not await _bring(server):
        return
    for name in known:
        pipe.execute_command("FUNCTION DELETE", name)
    if known:
        await execute(pipe, raise_on_error=False)  # another may have taken it away in between


async def bring_back(servers: Iterable[Any]) -> None:
    """Load the library where it is missing; whatever else is there, somebody may need.

    A server that cannot take it now is left as it is. Raises: NoPermissionError where it never will.
    """
    for brought in await asyncio.gather(*(_bring(server) for server in servers), return_exceptions=True):
        if isinstance(brought, BaseException) and not is_passing(brought):
            raise brought


def is_passing(fault: BaseException) -> bool:
    """Whether a server that did not take the library may take it later: it is away, full, or a replica just now."""
    return isinstance(fault, (*NOT_NOW, ResponseError)) and not isinstance(fault, NoPermissionError)


async def _bring(server: Any) -> bool:
    """Whether it was not there before."""
    pipe = server.pipeline(transaction=False)
    command, word, text = LIBRARY.loading()
    pipe.execute_command(f"{command} {word}", text)
    try:
        await execute(pipe)
    except ResponseError as error:
        if not is_there_already(error):
            raise
        return False
    return True
