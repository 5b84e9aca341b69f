"""What is remembered of requests."""

from __future__ import annotations

import pytest

from billing_core.errors import InvalidInput
from gateway.admission.order import Mode
from gateway.edge.envoy.descriptor import Readings, Who
from tests.envoy_schema import message

LIMIT = message("envoy.service.ratelimit.v3.RateLimitRequest")


def request(*entries: dict[str, str], hits: int = 0) -> bytes:
    asked = LIMIT(domain="t1", hits_addend=hits)
    for told in entries:
        descriptor = asked.descriptors.add()
        for name, value in told.items():
            descriptor.entries.add(key=name, value=value)
    return asked.SerializeToString()


def test_the_same_words_are_read_once_and_others_are_others() -> None:
    """By all their bytes."""
    readings = Readings(shadow=False)
    first = request({"key": "a", "feature": "f"})
    assert readings.read(first) is readings.read(bytes(bytearray(first)))
    other = readings.read(request({"key": "a", "feature": "f"}, hits=2))
    ((who, order),) = other.orders.items()
    assert (who, order.charges[0].quantity, order.mode) == (Who(key="a"), 2, Mode.CONSUME)


@pytest.mark.parametrize(
    "entries",
    [
        {"key": "a", "feature": "f", "request_id": "r"},
        {"hold": "hold_1", "feature": "f"},
        {"key": "a", "feature": "f", "x": "y" * 600},
    ],
)
def test_what_never_comes_again_or_is_long_is_not_remembered(entries: dict[str, str]) -> None:
    """It would only push out what does."""
    readings = Readings(shadow=False)
    assert readings.read(request(entries)) is not readings.read(request(entries))


def test_what_is_remembered_is_bounded() -> None:
    """Keys that are made up do not fill our memory."""
    readings = Readings(shadow=False)
    for number in range(10_000):
        readings.read(request({"key": str(number), "feature": "f"}))
    assert 0 < len(readings._known) <= 4_096


def test_a_mistake_is_told_each_time() -> None:
    """Nothing is remembered of it."""
    readings = Readings(shadow=False)
    for _ in range(2):
        with pytest.raises(InvalidInput):
            readings.read(request({"key": "a"}))


def test_shadow_is_of_what_may_be_refused() -> None:
    """A record is never refused, and a look records nothing."""
    readings = Readings(shadow=True)
    for mode, is_shadow in (("consume", True), ("record", False)):
        reading = readings.read(request({"key": "a", "feature": "f", "mode": mode}))
        assert [order.shadow for order in reading.orders.values()] == [is_shadow]
