"""Where more has piled up than a batch holds, lanes take turns, so that none of them waits for another's end."""

from __future__ import annotations

from billing_core.adapters.usage_stream import UsageStream
from billing_core.contract.keys import LANE_COUNT, SHARD_COUNT, lane_of, stream_key
from billing_core.contract.usage_event import StreamPosition
from tests.integration.stream.conftest import Works

START = StreamPosition(0, 0)
FIRST_OF_LANE = [
    next(shard for shard in range(SHARD_COUNT) if lane_of(shard) == lane) for lane in range(LANE_COUNT)
]


async def fill(works: Works, *, each: int) -> None:
    """So many entries in one stream of each lane."""
    for shard in FIRST_OF_LANE:
        for number in range(each):
            await works.valkey.xadd(stream_key(shard), {"k": "event"}, id=f"5-{number}")


async def test_lanes_take_turns_until_everything_is_read(works: Works) -> None:
    """Sixteen entries fit: each lane has its turn before the first has another, and nothing is read twice."""
    await fill(works, each=20)
    stream = UsageStream(works.valkey)
    after = dict.fromkeys(range(SHARD_COUNT), START)
    turns: list[tuple[int, int]] = []
    is_complete = False
    while not is_complete:
        harvest = await stream.read(after, most=16)
        turns += [(lane_of(reading.shard), len(reading.entries)) for reading in harvest.readings]
        after |= {reading.shard: reading.last for reading in harvest.readings}
        is_complete = harvest.is_complete
    assert turns[:LANE_COUNT] == [(lane, 16) for lane in range(LANE_COUNT)]
    assert sorted(turns[LANE_COUNT:]) == [(lane, 4) for lane in range(LANE_COUNT)]
    assert set(after.values()) == {START, StreamPosition(5, 19)}


async def test_who_has_read_everything_asks_all_lanes_at_once(works: Works) -> None:
    """What comes next is read from all lanes; once it has been more than fits, only from as many as it takes."""
    stream = UsageStream(works.valkey)
    after = dict.fromkeys(range(SHARD_COUNT), START)
    assert (await stream.read(after, most=1_024)).is_complete
    await fill(works, each=100)
    once = await stream.read(after, most=1_024)
    assert (len(once.readings), once.is_complete) == (LANE_COUNT, False)
    again = await stream.read(after, most=1_024)
    assert [lane_of(reading.shard) for reading in again.readings] == list(range(11))
    assert [len(reading.entries) for reading in again.readings[:10]] == [100] * 10
    assert not again.is_complete


async def test_a_turn_goes_on_where_its_lane_was_given_away(works: Works) -> None:
    """Lane 1 was next and is another flusher's now: the turns begin anew with those that are left."""
    await fill(works, each=20)
    stream = UsageStream(works.valkey)
    first = await stream.read(dict.fromkeys(range(SHARD_COUNT), START), most=16)
    left = dict.fromkeys((shard for shard in range(SHARD_COUNT) if lane_of(shard) != 1), START)
    second = await stream.read(left, most=16)
    third = await stream.read(left, most=16)
    read = [[lane_of(reading.shard) for reading in one.readings] for one in (first, second, third)]
    assert read == [[0], [0], [2]]
