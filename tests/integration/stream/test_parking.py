"""What cannot be written is kept whole, named, and stops nobody."""

from __future__ import annotations

import pytest

from billing_core.contract.keys import shard_of_customer, stream_key
from billing_core.contract.usage_event import EventBody, encode_body
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works

GOOD = EventBody(event_id="d", tenant_id="t", customer_id="c", features=("input_tokens",))


def entry(**more: object) -> dict[str, object]:
    """An entry as consume.lua writes it, except for what is said."""
    fields: dict[str, object] = {"k": "debit", "b": encode_body(GOOD), "at": 1_772_000_000_000}
    return fields | {"q": "1", "c": "0", "u": "0", "s": "0", "m": "", "w": "USD", "e": "1"} | more


POISON = {
    "no fields at all": {"x": "y"},
    "a body that is no msgpack": entry(b=b"\xc1\xff"),
    "a kind of tomorrow": entry(k="refund"),
    "no instant": entry(at="yesterday"),
    "an instant beyond all calendars": entry(at=2**62),
    "fewer quantities than charges": entry(q=""),
    "a cost without a movement": entry(c="5"),
    "a grant that does not exist": entry(c="5", m="gra_nobody=5"),
    "a movement of nothing": entry(c="0", m="GRANT=0"),
    "more than the grant holds": entry(c="1000000001", m="GRANT=1000000001"),
    "more than a column holds": entry(q=str(2**70), c=str(2**70), m=f"GRANT={2**70}"),
    "a negative quantity": entry(q="-1"),
    "a zero byte in a name": entry(
        b=encode_body(EventBody(event_id="d", tenant_id="t", customer_id="c", features=("in\x00put",)))
    ),
    "text that is no UTF-8": entry(w=b"\xff\xfe"),
}

REASONS = {
    "no fields at all": "KeyError",
    "a body that is no msgpack": "DecodeError",
    "a kind of tomorrow": "have no charges",
    "no instant": "ValueError",
    "an instant beyond all calendars": "OverflowError",
    "fewer quantities than charges": "shorter",
    "a cost without a movement": "charges 5 nanos and moves 0",
    "a grant that does not exist": "moves a grant that does not exist",
    "a movement of nothing": "charges 0 nanos and moves 0",
    "more than the grant holds": "a grant is never overspent",
    "more than a column holds": "too large",
    "a negative quantity": "CheckViolationError",
    "a zero byte in a name": "CharacterNotInRepertoireError",
    "text that is no UTF-8": "UnicodeDecodeError",
}
"""What each is parked for: by the transcript, or by Postgres when its batch is halved."""


@pytest.mark.parametrize("fault", POISON)
async def test_an_entry_that_cannot_be_written_is_parked_and_the_others_go_on(works: Works, fault: str) -> None:
    """Good entries before and behind it in the same batch are written; its fields are kept byte for byte."""
    (grant,) = await works.customer("c", nanos=[10**9])
    stream = stream_key(shard_of_customer("t", "c"))
    poison = {
        name: value.replace("GRANT", grant) if isinstance(value, str) else value
        for name, value in POISON[fault].items()
    }
    await works.consume("c", 1)
    stream_id = await works.valkey.xadd(stream, poison)
    await works.consume("c", 2)
    tally = await works.flush()
    assert tally.parked_rows == 1
    parked = await works.raw.fetchrow("SELECT * FROM parked_entry")
    assert f"{parked['stream_ms']}-{parked['stream_seq']}" == stream_id.decode()
    told = [value if isinstance(value, bytes) else str(value).encode() for item in poison.items() for value in item]
    assert list(parked["fields"]) == told
    assert REASONS[fault] in parked["reason"]
    assert await works.spent(grant) == 3 * NANOS_PER_TOKEN
    assert await works.count("usage_event") == 2
    assert await works.count("movement") == 2


async def test_many_poisonous_entries_among_many_good_ones_are_all_found(works: Works) -> None:
    """Halving a refused batch ends with each entry at fault alone."""
    (grant,) = await works.customer("c", nanos=[10**9])
    stream = stream_key(shard_of_customer("t", "c"))
    for number in range(120):
        if number % 17 == 5:
            await works.valkey.xadd(stream, entry(q="-1"))
        await works.consume("c", 1)
    tally = await works.flush()
    assert (tally.parked_rows, tally.conflicts) == (7, 0)
    assert await works.count("parked_entry") == 7
    assert await works.count("usage_event") == 120
    assert await works.spent(grant) == 120 * NANOS_PER_TOKEN
