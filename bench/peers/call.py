"""The script call that the peers make: the words that the gateway itself would send, with places to fill in.

This is the one place that knows how an act of `lua/` is called. `full` is our own complete decision; `least` is the
smallest thing that can be called a debit with a usage event: compare, take off, append.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import msgspec
import redis

from bench.apparatus.customer import KEYS, TENANT
from gateway.admission.caller import caller_of_customer
from gateway.admission.order import Act, Charge, Order, Terms, plan
from gateway.state.resp import Word
from lua.loader import SCRIPTS

FEATURE: Final = "calls"
RATE_LIMIT: Final = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
_PLENTY: Final = 10**15
_LEAST: Final = """
local amount = tonumber(ARGV[1])
if tonumber(redis.call('HGET', KEYS[1], 'r') or '0') < amount then return 0 end
redis.call('HINCRBY', KEYS[1], 'r', -amount)
redis.call('XADD', KEYS[2], '*', 'b', ARGV[2])
return 1
"""
_LEAST_KEYS: Final = ("{bench}:debit", "{bench}:usage")


class CallerWords(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one customer's call: `@feature`, `@quantity` and `@body` are to be filled in.

    `body` has the two ends of the entry's body, base64; a fresh event id of 36 characters goes in between.
    """

    words: list[str]
    body: tuple[str, str]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer's server is told. The reply is packed: a peer looks for `allowed` in it and tells no more."""

    host: str
    port: int
    callers: dict[str, CallerWords]


def words_of(act: Act) -> tuple[Word, ...]:
    """The command that runs an act."""
    return SCRIPTS[act.script].call(act.keys, act.args)


def act_of(name: str) -> Act:
    """The decision on one request of that customer."""
    order = Order(charges=(Charge(feature=FEATURE, quantity=1),))
    return plan(order, caller_of_customer(TENANT, name), terms=Terms(window_ms=0))


def rate_limit_message(key: str) -> bytes:
    """A RateLimitRequest with one descriptor, which names key and feature.

    Source: envoy/service/ratelimit/v3/rls.proto.
    """
    pairs = (("key", key), ("feature", FEATURE))
    entries = (_told(1, _told(1, name.encode()) + _told(2, value.encode())) for name, value in pairs)
    return _told(1, TENANT.encode()) + _told(2, b"".join(entries))


def _told(number: int, data: bytes) -> bytes:
    """A field of protobuf: its number, its length, which is below 128 here, its bytes."""
    return bytes((number << 3 | 2, len(data))) + data


def streams() -> tuple[str, ...]:
    """Where the entries go."""
    return (_LEAST_KEYS[1], *(str(act_of(name).keys[4]) for name in KEYS))


def write_calls(folder: Path, client: redis.Redis, *, port: int) -> None:
    """One file for the complete decision, one for the smallest."""
    full = Call(
        host="127.0.0.1",
        port=port,
        callers={key: _full(name) for name, key in KEYS.items()},
    )
    sha = str(client.script_load(_LEAST))
    client.hset(_LEAST_KEYS[0], "r", _PLENTY)
    words = ["EVALSHA", sha, str(len(_LEAST_KEYS)), *_LEAST_KEYS, "@quantity", "@body"]
    callers = {key: CallerWords(words=words, body=_ends(act_of(name))) for name, key in KEYS.items()}
    least = Call(host="127.0.0.1", port=port, callers=callers)
    for name, call in (("full", full), ("least", least)):
        (folder / f"{name}.json").write_bytes(msgspec.json.encode(call))


def _full(name: str) -> CallerWords:
    act = act_of(name)
    *words, feature, _ = words_of(act)
    if feature != FEATURE:
        raise SystemExit("a decision's last words are no longer feature and quantity")
    told = ["@body" if word == act.body else str(word) for word in words]
    return CallerWords(words=[*told, "@feature", "@quantity"], body=_ends(act))


def _ends(act: Act) -> tuple[str, str]:
    head, _, tail = act.body.partition(act.decision_id.encode())
    return base64.b64encode(head).decode(), base64.b64encode(tail).decode()
