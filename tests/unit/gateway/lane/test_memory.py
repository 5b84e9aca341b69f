"""A head that is known by its words means what it would mean if it were read."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.edge.lane.head import Malformed, read_head
from gateway.edge.lane.memory import HeadMemory
from tests.unit.gateway.lane.requests import ANY, TABLE, head

LINES = (
    "X-Request-Id: {}", "x-request-id: {}", "X-Request-Id:{}", "X-Request-Id: {} ", "X-Request-Id: {}\r\n b",
    "X-Request-Id : {}", "X-Request-Ids: {}", "A: X-Request-Id: {}", "Content-Length: 2", "Content-Length: {}",
    "Connection: close", "Transfer-Encoding: chunked", "Expect: 100-continue", "A:\0{}", "Host: b",
)  # fmt: skip
IDS = st.one_of(
    st.text("aB9-", max_size=4), st.sampled_from(["a b", "\0", "a\r\nContent-Length: 5", "\xe4", "a" * 65])
)


def meaning(raw: bytes, memory: HeadMemory | None) -> Any:
    """What is made of a head, by memory or without."""
    try:
        found = read_head(raw, TABLE) if memory is None else memory.known(raw) or memory.read(raw)
    except Malformed as fault:
        return fault.status, fault.detail
    return (
        found.raw, found.route, found.subject, found.query, dict(found.fields), found.length, found.is_last
    )  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(lines=st.lists(st.sampled_from(LINES), max_size=4), ids=st.lists(IDS, min_size=1, max_size=4))
@example(lines=["x-request-id: a", "X-Request-Id: {}"], ids=["a", "b"])
@example(lines=["X-Request-Id: {}", "x-request-id: a"], ids=["a", "b"])
@example(lines=["X-Request-Id: {}", "A:\0{}"], ids=["a", "b"])
@example(lines=["X-Request-Id: {}"], ids=["a", "\0"])
def test_a_known_head_means_what_it_would_mean_if_it_were_read(lines: list[str], ids: list[str]) -> None:
    """Whatever comes in the place of the id, and whatever came before."""
    memory = HeadMemory(TABLE)
    for name in (*ids, *ids):
        raw = head(*(line.replace("{}", name) for line in lines), target="/v1/authorize/nginx?a=b", method="GET")
        assert meaning(raw, memory) == meaning(raw, None)


def test_only_the_id_may_differ() -> None:
    """Another credential is another head."""
    memory = HeadMemory(TABLE)
    one, other = (
        head(f"X-Request-Id: {name}", "Authorization: Bearer a", target="/v1/authorize/nginx") for name in "pq"
    )
    assert memory.known(one) is None
    memory.read(one)
    known = memory.known(other)
    assert known is not None
    assert (known.route, known.fields["x-request-id"], known.raw) == (ANY, "q", other)
    assert memory.known(other.replace(b"Bearer a", b"Bearer b")) is None


def test_the_oldest_gives_way_and_what_is_not_the_lanes_is_not_kept() -> None:
    """There is room for so many."""
    memory = HeadMemory(TABLE, capacity=2)
    heads = [head(f"A: {name}") for name in "abc"]
    for raw in (*heads, head(target="/v1/events")):
        memory.read(raw)
    assert [memory.known(raw) is not None for raw in heads] == [False, True, True]
    assert memory.known(head(target="/v1/events")) is None


def test_long_heads_are_not_kept() -> None:
    """A place is for many, not for one."""
    memory, raw = HeadMemory(TABLE), head("A: " + "b" * 2_048)
    memory.read(raw)
    assert memory.known(raw) is None
