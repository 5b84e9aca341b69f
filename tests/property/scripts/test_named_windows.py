"""Windows of limits: rolling time, what is carried over, counting from an instant on, grace."""

from __future__ import annotations

import msgspec
from desk import Desk
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model.counting import LARGEST, kept_fields, open_tally
from shop import DAY_MS, Shop, limit, metered

from billing_core.contract.snapshot import Entitlement, Guard, Limit, Window, WindowKind
from lua.loader import assemble

DAYS = Window(kind=WindowKind.STEPS, anchor_ms=0, every_ms=DAY_MS)
ROLLING = Window(kind=WindowKind.ROLLING, every_ms=DAY_MS)


def limited(one: Limit) -> Entitlement:
    return metered(guard=Guard(limits=(one,)))


def test_a_grace_lets_through_what_is_told_as_used_up(shop: Shop) -> None:
    """Refused above the ceiling, told by the limit."""
    shop.project(calls=limited(limit(10, ceiling=12)))
    assert shop.consume(("calls", 10))[13:15] == (10, 0)
    replies = [shop.consume(("calls", 1)) for _ in range(3)]
    assert [(reply[0], *reply[13:15]) for reply in replies] == [
        ("allowed", 10, 0),
        ("allowed", 10, 0),
        ("limit_reached", 10, 0),
    ]


def test_the_refusal_says_when_the_window_is_over(shop: Shop) -> None:
    """To the millisecond; of a lifetime nothing."""
    shop.project(calls=limited(limit(1, window=DAYS)), ever=limited(limit(1, counter="e@ever")))
    shop.consume(("calls", 1), ("ever", 1))
    day, ever = shop.consume(("calls", 1)), shop.consume(("ever", 1))
    assert (day[0], day[5] + day[11], day[15]) == ("limit_reached", day[15], day[15] // DAY_MS * DAY_MS)
    assert (ever[0], ever[11], ever[15]) == ("limit_reached", 0, 0)


def test_counting_starts_anew_at_an_instant(shop: Shop) -> None:
    """What was used before a change of plan is forgotten, in any kind of window; what is held is not."""
    now = shop.desk.now_ms()
    for window in (DAYS, ROLLING, Window(kind=WindowKind.LIFETIME)):
        shop.project(calls=limited(limit(10, window=window)))
        shop.consume(("calls", 6))
        hold_id = shop.hold(("calls", 2))[10]
        assert shop.consume(("calls", 3))[0] == "limit_reached"
        shop.project(calls=limited(limit(10, window=window, since_ms=now)))
        assert shop.consume(("calls", 8))[13:15] == (10, 0)
        shop.release(hold_id)
        shop.desk.client.delete(*shop.desk.client.keys("*:use:*"))


def test_what_was_not_used_is_carried_over(shop: Shop) -> None:
    """Up to a most, over windows that nobody used too, and the limit that is told rises by it."""
    carrying = limited(limit(10, window=DAYS, carry_units=25))
    shop.project(calls=carrying)
    assert shop.consume(("calls", 4))[13:15] == (10, 6)
    shop.project(calls=carrying, offset_ms=DAY_MS)
    assert shop.consume(("calls", 1))[13:15] == (16, 15)
    shop.project(calls=carrying, offset_ms=3 * DAY_MS)
    assert shop.peek(("calls", 0))[13:15] == (35, 35)
    assert shop.consume(("calls", 36))[0] == "limit_reached"
    assert shop.consume(("calls", 35))[13:15] == (35, 0)
    shop.project(calls=carrying, offset_ms=4 * DAY_MS)
    assert shop.consume(("calls", 11))[0] == "limit_reached"


def test_who_has_never_asked_carries_since_the_limit_began(shop: Shop) -> None:
    """Where it says when; else it begins with the first use."""
    now = shop.desk.now_ms()
    known = limit(10, window=DAYS, carry_units=1000, since_ms=now - 3 * DAY_MS)
    shop.project(calls=limited(known), other=limited(limit(10, window=DAYS, carry_units=1000, counter="o@day")))
    assert [shop.peek((feature, 0))[13] for feature in ("calls", "other")] == [40, 10]


COUNT = assemble(
    """--!include lib/value/number.lua
--!include lib/value/memo.lua
--!include lib/value/window.lua
--!include lib/value/path.lua
--!include lib/level/rolling.lua as rolling_acts
--!include lib/level/carry.lua as carry_acts
--!include lib/level/counter.lua
local limit, stored, replies = cmsgpack.unpack(ARGV[1]), {}, {}
for n = 2, #ARGV, 2 do
  local node, at = node_of('customer', false, 'k'), whole(ARGV[n])
  node.fields, node.counters = {}, {}
  local slot, values, fields = counter_slot(node, limit[1], limit[4], limit[5], limit), {}, {}
  for place = 1, 4 do values[place] = node.fields[place] and stored[node.fields[place]] or false end
  read_counter(slot, values, at)
  local most = math.min(limit[3] + slot.carried, MAX_EXACT)
  slot.more_used = math.max(0, math.min(whole(ARGV[n + 1]), most - slot.used))
  write_counter(slot, fields, at)
  for place = 1, #fields, 2 do stored[fields[place]] = fields[place + 1] end
  local told = digits(slot.used) .. ' ' .. digits(slot.carried) .. ' ' .. digits(slot.more_used)
  replies[#replies + 1] = slot.start and told or 'none'
end
return replies
"""
)

spans = st.integers(0, 4 * DAY_MS)
units = st.one_of(st.integers(0, 30), st.sampled_from([LARGEST, LARGEST // 2]))


@st.composite
def visits(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Instants, mostly later ones, and how many units are wanted."""
    at, listed = 400 * DAY_MS, list[tuple[int, int]]()
    for step, wanted in draw(st.lists(st.tuples(spans, units), min_size=1, max_size=12)):
        at += step
        listed.append((at, wanted))
    return listed


@settings(max_examples=100, deadline=None)
@given(
    listed=visits(),
    granted=st.one_of(st.integers(0, 40), st.just(LARGEST)),
    carry=st.sampled_from([0, 1, 25, 90, LARGEST]),
    since_ms=st.sampled_from([0, 397 * DAY_MS + 5, 402 * DAY_MS - 1]),
    is_listed=st.booleans(),
)
@example(listed=[(400 * DAY_MS, 0), (499 * DAY_MS, 0)], granted=1, carry=50, since_ms=1, is_listed=False)
@example(
    listed=[(400 * DAY_MS, LARGEST), (401 * DAY_MS, 0)], granted=LARGEST, carry=90, since_ms=1, is_listed=False
)
def test_what_is_carried_is_what_each_window_passes_on(
    desk: Desk, listed: list[tuple[int, int]], granted: int, carry: int, since_ms: int, is_listed: bool
) -> None:
    """The closed form over a gap equals the rule of one window after the other, exact to 2^53."""
    edges = tuple(day * DAY_MS for day in range(390, 460))
    window = Window(kind=WindowKind.EDGES, edges_ms=edges) if is_listed else DAYS
    told = Limit(counter="c", units=granted, ceiling=granted, window=window, since_ms=since_ms, carry_units=carry)
    assert desk_counts(desk, told, listed) == model_counts(told, listed)


@settings(max_examples=100, deadline=None)
@given(listed=visits(), granted=st.integers(0, 60), minutes=st.sampled_from([1, 60, 1440, 5000]))
def test_no_span_of_a_rolling_window_holds_more_than_its_limit(
    desk: Desk, listed: list[tuple[int, int]], granted: int, minutes: int
) -> None:
    """Whatever span of that length one looks at; and in the model's words, bucket by bucket."""
    window = Window(kind=WindowKind.ROLLING, every_ms=minutes * 60_000)
    told = Limit(counter="c", units=granted, ceiling=granted, window=window)
    real = desk_counts(desk, told, listed)
    assert real == model_counts(told, listed)
    taken = [(at, int(text.split()[2])) for (at, _), text in zip(listed, real, strict=True)]
    for end, _ in taken:
        inside = sum(more for at, more in taken if end - window.every_ms < at <= end)
        assert inside <= granted


def desk_counts(desk: Desk, told: Limit, listed: list[tuple[int, int]]) -> list[str]:
    args = [number for visit in listed for number in visit]
    return [part.decode() for part in desk.client.eval(COUNT, 0, msgspec.msgpack.encode(told), *args)]


def model_counts(told: Limit, listed: list[tuple[int, int]]) -> list[str]:
    """Used, carried and taken at each visit; one takes what fits."""
    stored: dict[str, object] = {}
    replies: list[str] = []
    for at, wanted in listed:
        tally = open_tally("c", told.window, stored=stored, at=at, since_ms=told.since_ms, limit=told)
        tally.more_used = max(0, min(wanted, min(told.ceiling + tally.carried, LARGEST) - tally.used))
        stored |= kept_fields(tally, at)
        told_now = f"{tally.used} {tally.carried} {tally.more_used}"
        replies.append("none" if tally.start is None else told_now)
    return replies
