"""`python -P -m gateway.command.chaos.wire PORT SOCKET`: a network between the gateways and Valkey that can fail.

A process of its own, so that it is no slower than the load is busy. It forwards bytes both ways, and obeys one
word a line on its standard input, each answered by the same line:

    flow       pass everything on, at once; what was kept back leaves first
    stall      pass nothing on and read nothing more, as when packets are lost and sent again for a long time
    delay MS   pass everything on, so much later
    cut        pass on the first half of what comes next from a gateway, then break that connection

It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Final

_CHUNK_BYTES: Final = 65_536


class Wire:
    """Connections to one unix socket, and the fault that all of them share."""

    def __init__(self, behind: str) -> None:
        self._behind = behind
        self._delay_s = 0.0
        self._cuts = False
        self._flows = asyncio.Event()
        self._flows.set()

    def obey(self, order: str) -> None:
        """Begin a fault, or end it. Raises: ValueError for what is no order."""
        word, _, number = order.partition(" ")
        self._delay_s = int(number) / 1_000 if word == "delay" else 0.0
        self._cuts = word == "cut"
        if word == "stall":
            self._flows.clear()
        elif word in ("flow", "delay", "cut"):
            self._flows.set()
        else:
            raise ValueError(f"{order!r} is no order")

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._behind)
            ways = [
                asyncio.create_task(self._carry(reader, far_writer, pass_on=self._pass_half)),
                asyncio.create_task(self._carry(far_reader, writer, pass_on=self._pass_whole)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            far_writer.transport.abort()
        writer.transport.abort()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        pass_on: Callable[[asyncio.StreamWriter, bytes], Awaitable[bool]],
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                if not await pass_on(writer, chunk):
                    return

    async def _pass_half(self, writer: asyncio.StreamWriter, chunk: bytes) -> bool:
        """Pass a gateway's words on; half of them, once, where the wire is to be cut."""
        if not self._cuts:
            return await self._pass_whole(writer, chunk)
        self._cuts = False
        await self._pass_whole(writer, chunk[: len(chunk) // 2])
        return False

    async def _pass_whole(self, writer: asyncio.StreamWriter, chunk: bytes) -> bool:
        writer.write(chunk)
        await writer.drain()
        return True


async def serve(port: int, behind: str) -> None:
    """Carry connections until the standard input ends."""
    wire, orders = Wire(behind), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    server = await asyncio.start_server(wire.join, "127.0.0.1", port)
    sys.stdout.write("flow\n")
    sys.stdout.flush()
    while line := await orders.readline():
        wire.obey(line.decode().strip())
        sys.stdout.write(line.decode())
        sys.stdout.flush()
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
