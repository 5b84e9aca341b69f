"""The floor under a call: the commands that it runs, alone.

A call is watched once by MONITOR, which tells every command that a script runs and with which words. A function of
the server that runs the same commands with the same words, one behind the other, without a decision in between, and
gives the same reply, takes the place of the script: whatever a script does besides costs more than that. It is
called with the words of the call itself, so that reading those costs the same too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Final, cast

import redis

_WORD: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BY_SCRIPT: Final = re.compile(rb"\[\d+ lua\] ")
_END: Final = b"floor"

Words = tuple[Any, ...]


def floors(client: redis.Redis, calls: dict[str, Words]) -> dict[str, Words]:
    """The floor of each call, by the same names. Each call is run once."""
    text = "#!lua name=floors\n"
    for number, call in enumerate(calls.values()):
        commands, reply = _watched(client, call)
        lines = "\n".join(f"redis.call({', '.join(map(_literal, words))})" for words in commands)
        text += f"redis.register_function('floor_{number}', function()\n{lines}\nreturn {_literal(reply)}\nend)\n"
    client.function_load(text)
    return {name: ("FCALL", f"floor_{number}", *call[2:]) for number, (name, call) in enumerate(calls.items())}


def _watched(client: redis.Redis, call: Words) -> tuple[list[list[bytes]], Any]:
    """The commands that the call's script runs, and its reply."""
    pool = client.connection_pool
    watcher = pool.get_connection()
    watcher.send_command("MONITOR")
    watcher.read_response()
    reply: Any = cast("Any", client).execute_command(*call)
    client.echo(_END)
    commands: list[list[bytes]] = []
    while True:
        line = cast("bytes", watcher.read_response())
        words = [ast.literal_eval("b" + word.decode()) for word in _WORD.findall(line)]
        if words == [b"ECHO", _END]:
            break
        if _BY_SCRIPT.search(line):
            commands.append(words)
    watcher.disconnect()
    pool.release(watcher)
    return commands, reply


def _literal(value: int | bytes | Sequence[Any]) -> str:
    """As Lua writes it."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return '"' + "".join(f"\\{byte:03d}" for byte in value) + '"'
    return "{" + ", ".join(map(_literal, value)) + "}"
