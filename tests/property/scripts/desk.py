"""The desk: runs the scripts on a real Valkey and tells everything it then holds, in plain values.

What the model claims about time is a `Near`: the server's clock runs on while a test thinks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import redis

from billing_core.contract.keys import CustomerKeys, customer_keys, hold_key
from lua.loader import SCRIPTS

TOLERANCE_MS = 60_000
NUMBER_FIELDS = frozenset(
    {"deadline_ms", "at", "charged", "released", "uncollected", "balance", "v", "off", "x", "o"}
)
COUNTER_FIELDS = frozenset({":u", ":w", ":h", ":k", ":c", ":g"})

Reply = tuple[int | str, ...] | int | str


class Near(int):
    """An instant or a span in milliseconds that another one equals when less than a minute lies between."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and abs(int(self) - int(other)) < TOLERANCE_MS

    __hash__ = None  # type: ignore[assignment]


class Desk:
    """One client of a server that has the library."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def clear(self) -> None:
        self.client.flushall()

    def now_ms(self) -> int:
        seconds, micros = self.client.time()
        return seconds * 1000 + micros // 1000

    def wait_until(self, instant_ms: int) -> None:
        """Ask the server for its time until the instant is over."""
        while self.now_ms() <= instant_ms:
            pass

    def run(self, name: str, keys: list[str], *args: object) -> Reply:
        """The script's reply; the words of an error reply as text, any other failure raises."""
        try:
            return plain_reply(self.client.execute_command(*SCRIPTS[name].call(keys, args)))
        except redis.ResponseError as error:
            words = str(error)
            if words not in SCRIPTS[name].error_replies:
                raise
            return words

    @contextmanager
    def at_once(self) -> Iterator[list[Any]]:
        """What the block runs, or asks the client for, is done at its end and in one instant; its replies then."""
        client, replies = self.client, list[Any]()
        pipe = client.pipeline(transaction=True)
        self.client = cast("redis.Redis", pipe)
        try:
            yield replies
        finally:
            self.client = client
        for reply in pipe.execute(raise_on_error=False):
            replies.append(str(reply) if isinstance(reply, redis.ResponseError) else plain_reply(reply))

    def dump(self) -> dict[str, Any]:
        """Everything that the server holds: key -> content, or (content, ms to live) where it will vanish."""
        names = sorted(self.client.keys("*"))
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.type(name)
            pipe.pttl(name)
        facts = pipe.execute()
        for name, kind in zip(names, facts[::2], strict=True):
            READERS[kind](pipe, name)
        contents = pipe.execute()
        return {
            name.decode(): plain_content(kind, content) if ttl < 0 else (plain_content(kind, content), ttl)
            for name, kind, ttl, content in zip(names, facts[::2], facts[1::2], contents, strict=True)
        }

    def dump_raw(self) -> dict[bytes, bytes]:
        """Everything as the server would store it, whatever it is."""
        names = sorted(self.client.keys("*"))
        return {name: self.client.dump(name) for name in names}


READERS = {
    b"string": lambda pipe, name: pipe.get(name),
    b"hash": lambda pipe, name: pipe.hgetall(name),
    b"zset": lambda pipe, name: pipe.zrange(name, 0, -1, withscores=True),
    b"stream": lambda pipe, name: pipe.xrange(name),
}


def plain_reply(reply: Any) -> Reply:
    """A script's reply: packed, or a list of the protocol."""
    return unpacked(reply) if isinstance(reply, bytes) else plain(reply)


def plain(reply: Any) -> Reply:
    """Bytes as text, lists as tuples."""
    if isinstance(reply, list):
        return tuple(plain(part) for part in reply)
    return reply.decode() if isinstance(reply, bytes) else reply


def plain_content(kind: bytes, content: Any) -> Any:
    """A key's content as the model tells it."""
    if kind == b"hash":
        return {name.decode(): plain_field(name.decode(), value) for name, value in content.items()}
    if kind == b"zset":
        return {name.decode(): int(score) for name, score in content}
    if kind == b"stream":
        return [plain_content(b"hash", fields) for _, fields in content]
    if content[:1] in (b"\x92", b"\x93"):
        return unpacked(content)
    return unpacked_map(content) if content[0] & 0xF0 == 0x80 or content[0] == 0xDE else content.decode()


def plain_field(name: str, value: bytes) -> Any:
    """A field of a hash: packed orders unpacked, numbers as numbers."""
    if name.startswith("o:") or name.endswith(":b"):
        return unpacked(value)
    if name.startswith(("f:", "b:")) or name == "b":
        return value
    if name.endswith(":t"):
        return tuple(map(int, value.split()))
    if name in NUMBER_FIELDS or name[:2] in ("r:", "h:", "a:") or name[-2:] in COUNTER_FIELDS:
        return int(value)
    return value.decode()


def unpacked(value: bytes) -> Any:
    return frozen(msgspec.msgpack.decode(value))


def unpacked_map(value: bytes) -> Any:
    """A hold, whose body is bytes where msgpack expects text; it stands as it was packed, behind its length."""
    fields = msgspec.msgpack.decode(value, type=dict[str, msgspec.Raw])
    return {
        name: text_bytes(bytes(raw)) if name == "body" else unpacked(bytes(raw)) for name, raw in fields.items()
    }


def text_bytes(packed: bytes) -> bytes:
    """The bytes of a packed text."""
    return packed[{0xD9: 2, 0xDA: 3, 0xDB: 5}.get(packed[0], 1) :]


def frozen(value: Any) -> Any:
    """Lists as tuples; Lua has one table for both an empty list and an empty map."""
    if value == {}:
        return ()
    return tuple(frozen(part) for part in value) if isinstance(value, list) else value


def neighbours(tenant_id: str) -> list[CustomerKeys]:
    """Two customers of one shard."""
    first = customer_keys(tenant_id, "c0")
    codes = (f"c{number}" for number in range(1, 100_000))
    second = next(keys for code in codes if (keys := customer_keys(tenant_id, code)).shard == first.shard)
    return [first, second]


def decision_keys(keys: CustomerKeys, idempotency_key: str = "") -> list[str]:
    """The keys of consume and peek, and the first eight of hold."""
    return [
        keys.epoch,
        keys.snapshot,
        keys.counters,
        keys.wallet,
        keys.stream,
        keys.holds,
        keys.shard_holds,
        keys.idempotency_prefix + idempotency_key,
    ]


def hold_keys(keys: CustomerKeys, hold_id: str) -> list[str]:
    """The keys of settle; release takes the first three."""
    return [keys.epoch, hold_key(hold_id, keys.shard), keys.shard_holds, keys.stream]


def part_keys(keys: CustomerKeys, hold_id: str, idempotency_key: str = "") -> list[str]:
    """The keys of part; extend takes all but the stream. The answer stands where a decision's would."""
    return [*hold_keys(keys, hold_id), keys.idempotency_prefix + idempotency_key]


def grant_keys(keys: CustomerKeys) -> list[str]:
    """The keys of grant."""
    return [keys.epoch, keys.snapshot, keys.wallet, keys.stream]
