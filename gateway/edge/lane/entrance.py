"""The listening socket of a worker, and how to give it up without refusing anybody.

Each worker that listens on a port has a queue of its own, and the kernel resets whoever stands in one that is
closed, or is still shaking hands for it. So before it closes, three things happen. No handshake begins any more:
the kernel drops its first packet unheard; the client sends it again a second later, and another worker gets it.
Those that have begun get a moment to end. Whoever stands in the queue then is let in.

Source: socket(7), SO_REUSEPORT and SO_ATTACH_FILTER; Linux' filter.txt.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable
from typing import Final

_HANDSHAKE_S: Final = 0.05
_SO_ATTACH_FILTER: Final = 26
_FLAGS_AT, _SYN, _SYN_OR_ACK = 13, 0x02, 0x12
_NO_SYN: Final = (
    (0x30, 0, 0, _FLAGS_AT),  # the byte of flags in the TCP header
    (0x54, 0, 0, _SYN_OR_ACK),
    (0x15, 0, 1, _SYN),  # SYN alone: the first packet of a handshake
    (0x06, 0, 0, 0),  # is dropped
    (0x06, 0, 0, 0xFFFFFFFF),
)


class Entrance:
    """Lets connections in until it is closed."""

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._queue = listener.dup()  # lives on when the server closes its own
        self._listener = listener
        self._make_protocol = make_protocol
        self._server: asyncio.Server | None = None

    async def open(self, *, backlog: int) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make_protocol, sock=self._listener, backlog=backlog)

    async def close(self) -> None:
        """Listen no more; whoever has come already is let in."""
        if self._server is None:
            return
        server, self._server = self._server, None
        with self._queue:
            _begin_no_handshake(self._queue)
            await asyncio.sleep(_HANDSHAKE_S)
            server.close()
            while (late := _accepted(self._queue)) is not None:
                await asyncio.get_running_loop().connect_accepted_socket(self._make_protocol, late)


def _begin_no_handshake(listener: socket.socket) -> None:
    code = b"".join(struct.pack("HBBI", *step) for step in _NO_SYN)
    program = ctypes.create_string_buffer(code)
    option = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)


def _accepted(listener: socket.socket) -> socket.socket | None:
    """Who stands in the queue; None where nobody does."""
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None
