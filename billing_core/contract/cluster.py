"""A cluster of Redis processes: its address, its slots, and who serves which.

A key belongs to one of 16,384 slots by the CRC16 of its hash tag, and a slot to one primary. All keys of a shard
carry the shard's tag, so a shard is served by one primary at a time, and every script finds all its keys there.

Nodes may disagree about who serves what while one of them is being replaced, or cut off. All are asked, and the one
that is with the majority and knows the latest epoch is believed (`best_of`).

The address is `redis+cluster://[user[:password]@]host:port[,host:port...]`: some of the nodes, whichever answers
first tells the others. User and password are the same on all of them.

Worked example: the tag `s0421` of `{s0421}:epoch` has the CRC16 33,629, so the slot is 861. The node whose range
holds that number has the shard's stream and wallets too.

Source: Redis cluster specification, https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from billing_core.errors import ConfigurationError

SLOT_COUNT: Final = 16_384
SCHEME: Final = "redis+cluster://"
_LATE_ANSWER_S: Final = 0.05
_EPOCH: Final = re.compile(rb"^cluster_current_epoch:(\d+)", re.MULTILINE)


class Seeds(msgspec.Struct, frozen=True, kw_only=True):
    """Some nodes of a cluster, and who to be there."""

    places: tuple[tuple[str, int], ...]
    user: str = ""
    password: str = ""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Slots `first` to `last` and the primary that serves them; how many replicas stand behind it."""

    first: int
    last: int
    host: str
    port: int
    replicas: int


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What one node says of the cluster; `is_ok`: it is with the majority, and what it serves can be served."""

    is_ok: bool
    epoch: int
    ranges: tuple[Range, ...]


def slot_of(key: str | bytes) -> int:
    """The slot of a key: of what stands between its first `{` and the next `}`, or of all of it."""
    name = key.encode() if isinstance(key, str) else key
    start = name.find(b"{")
    end = name.find(b"}", start + 1) if start >= 0 else -1
    return binascii.crc_hqx(name[start + 1 : end] if end > start + 1 else name, 0) % SLOT_COUNT


def is_cluster(url: str) -> bool:
    """Whether an address names a cluster."""
    return url.startswith(SCHEME)


def seeds_of(url: str) -> Seeds:
    """The nodes that a cluster's address names.

    Raises: ConfigurationError, one line, where it cannot be understood.
    """
    access, _, listed = url.removeprefix(SCHEME).rstrip("/").rpartition("@")
    user, _, password = access.partition(":")
    return Seeds(
        places=tuple(_place(text) for text in listed.split(",")), user=unquote(user), password=unquote(password)
    )


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigurationError(f"redis_url: {text!r} is not host:port of a cluster's node", field="redis_url")
    return host.removeprefix("[").removesuffix("]"), int(port)


def process_name(run_id: str, replication_id: str) -> str:
    """One reign of one server process: both change when it starts, the second also when it becomes a primary."""
    return f"{run_id}-{replication_id}"


def survey_of(about: bytes, slots: Sequence[Any], *, asked_host: str) -> Survey:
    """What a node's `CLUSTER INFO` and `CLUSTER SLOTS` say, in bytes."""
    epoch = _EPOCH.search(about)
    return Survey(
        is_ok=b"cluster_state:ok" in about,
        epoch=int(epoch[1]) if epoch else 0,
        ranges=tuple(_ranges_of(slots, asked_host=asked_host)),
    )


def _ranges_of(slots: Sequence[Any], *, asked_host: str) -> Iterator[Range]:
    """A node that does not know its own address is where it was asked."""
    for first, last, primary, *replicas in slots:
        host = bytes(primary[0] or b"").decode() or asked_host
        yield Range(first=first, last=last, host=host, port=primary[1], replicas=len(replicas))


async def best_of(asked: Iterable[Coroutine[Any, Any, Survey | None]]) -> Survey | None:
    """Whom to believe; None where nobody answers. A node that hangs is waited for only while no other has
    answered."""
    waiting = {asyncio.create_task(one) for one in asked}
    found: list[Survey] = []
    try:
        while waiting:
            is_enough = any(survey.is_ok for survey in found)
            timeout_s = _LATE_ANSWER_S if is_enough else None
            done, waiting = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            found += [survey for task in done if (survey := task.result()) is not None and survey.ranges]
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return max(found, key=lambda survey: (survey.is_ok, survey.epoch), default=None)
