"""The second hook of a proxy, word by word."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.errors import InvalidInput
from gateway.admission.order import Charge
from gateway.edge.authorize.settle import SettleRoute
from gateway.edge.message import Request
from gateway.edge.proxy.settlement import MOST_WAITING, Settlement

AS_HELD: tuple[Charge, ...] = ()


def used(units: int) -> tuple[Charge, ...]:
    """So much of whatever was held."""
    return (Charge(feature="", quantity=units),)


class Told:
    """Notes what is to be ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, tuple[Charge, ...] | None]] = []

    async def end(self, settlement: Settlement, *, places: int) -> None:
        assert places < MOST_WAITING
        self.ended.append((settlement.hold_id, settlement.charges))


async def settle(query: str) -> list[tuple[str, tuple[Charge, ...] | None]]:
    told = Told()
    answer = await SettleRoute(told).settle(Request(headers={}, query=query, body=b"{"))  # type: ignore[arg-type]
    assert (answer.status, answer.body, answer.headers) == (204, b"", ())
    return told.ended


@pytest.mark.parametrize(
    ("query", "charges"),
    [
        ("hold=h", AS_HELD),
        ("hold=h&status=200", AS_HELD),
        ("hold=h&quantity=", AS_HELD),
        ("hold=h&quantity=-&status=-", AS_HELD),
        ("hold=h&quantity=7", used(7)),
        ("hold=h&quantity=0", used(0)),
        ("quantity=7&hold=h", used(7)),
        ("hold=h&quantity=7&quantity=1&hold=i", used(7)),
        ("free=4xx,5xx&hold=h&status=200&quantity=7", used(7)),
        ("free=4xx,5xx&hold=h&status=404&quantity=7", None),
        ("free=4xx,5xx&hold=h&status=503", None),
        ("free=404&hold=h&status=403&quantity=7", used(7)),
        ("free=404&hold=h&status=404&quantity=7", None),
        ("free=4xx&hold=h&quantity=7", used(7)),
        ("free=0xx&hold=h&status=0&quantity=7", None),
        ("free=0xx&hold=h&status=000", None),
        ("free=0xx&hold=h&status=200", AS_HELD),
        ("free=&hold=h&status=404", AS_HELD),
        ("hold=h&free=2xx&status=200&quantity=7", used(7)),
        ("hold=h&status=200&free=2xx", AS_HELD),
        ("free=4xx&free=2xx&hold=h&status=200", AS_HELD),
        ("hold=h&x=%ff&&=", AS_HELD),
    ],
)
async def test_a_response_ends_its_hold(query: str, charges: tuple[Charge, ...] | None) -> None:
    """As held, by what was used, or free; what is free stands in front; the first of a name counts."""
    assert await settle(query) == [("h", charges)]


@pytest.mark.parametrize("query", ["hold=", "hold=-", "hold=&status=403&quantity=5", "free=4xx&hold="])
async def test_where_nothing_was_held_nothing_is_settled(query: str) -> None:
    """The proxy calls after every request, also after those that were refused."""
    assert await settle(query) == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "hold"),
        ("status=200", "hold"),
        ("%68old=h", "hold"),
        ("free=xx&hold=h", "free"),
        ("free=4XX&hold=h", "free"),
        ("free=4xx 5xx&hold=h", "free"),
        ("hold=h&status=ok", "status"),
        ("hold=h&status=2000", "status"),
        ("hold=h&status=%D9%A1", "status"),
        ("hold=h&quantity=1.5", "quantity"),
        ("hold=h&quantity=-1", "quantity"),
        ("hold=h&quantity=9007199254740992", "quantity"),
        ("hold=h&quantity=" + "9" * 70_000, "quantity"),
    ],
)
async def test_a_hook_that_is_configured_wrongly_is_told(query: str, field: str) -> None:
    """And settles nothing."""
    with pytest.raises(InvalidInput) as caught:
        await settle(query)
    assert caught.value.field == field


@given(query=st.text(st.characters(max_codepoint=0x2FF), max_size=60).map(lambda text: f"{text}&hold=h"))
async def test_any_query_settles_once_or_is_refused(query: str) -> None:
    """Whatever bytes stand in it."""
    told = []
    with contextlib.suppress(InvalidInput):
        told = await settle(query)
    assert len(told) <= 1
