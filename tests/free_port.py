"""Ports to listen on, from below those that the system gives to outgoing connections.

A port that was bound as number 0 and closed again may be the local end of somebody's connection a moment later, and
the server that was meant to have it does not start. Each process of a test run counts through a range of its own.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _RANGES, _PORTS_OF_A_RANGE = 10_000, 8, 2_500
_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _RANGES
_TURNS = itertools.count(random.randrange(_PORTS_OF_A_RANGE))


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on, and that are not told again soon."""
    found: list[int] = []
    for turn in itertools.islice(_TURNS, _PORTS_OF_A_RANGE):
        port = _FIRST + _NUMBER * _PORTS_OF_A_RANGE + turn % _PORTS_OF_A_RANGE
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} ports are free from {_FIRST} on")
