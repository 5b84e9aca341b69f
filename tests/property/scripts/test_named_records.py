"""What has happened already is told once: records and client-sent events under a name that came before."""

from __future__ import annotations

from typing import Any

import pytest
from shop import KEYS, Shop, metered, tariff

from billing_core.contract.keys import event_ids_key


def test_a_record_that_is_told_twice_is_charged_once(shop: Shop) -> None:
    """The second is answered as the first, and leaves everything as it was; other quantities are a conflict."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 100)
    first = shop.record(("calls", 3), key="k")
    after = shop.desk.dump()
    assert shop.record(("calls", 3), key="k") == (first[0], 1, *first[2:])
    assert shop.record(("calls", 4), key="k", digest="other") == "CONFLICT idempotency"
    assert (shop.desk.dump()[KEYS.wallet], shop.desk.dump()[KEYS.stream]) == (
        after[KEYS.wallet],
        after[KEYS.stream],
    )
    assert (shop.wallet("r:grant_a"), len(shop.entries())) == (70, 1)


def test_a_record_ends_what_is_due_before_it_is_charged(shop: Shop) -> None:
    """What an expired hold gave back is there for the record."""
    shop.project(calls=metered(tariff(10)))
    shop.grant("grant_a", 50)
    shop.due_hold(("calls", 5), on_expiry="release")
    assert shop.record(("calls", 4))[7:9] == (40, 10)
    (entry,) = shop.entries()
    assert (entry.charges[0].charged_nanos, entry.charges[0].uncollected_nanos) == (40, 0)
    assert (shop.wallet("r:grant_a"), shop.wallet("h:grant_a")) == (10, 0)


IDS = event_ids_key("acme", KEYS.shard)
SPAN_MS = 2**30
WINDOW_MS = 60_000


def ingest(shop: Shop, *events: tuple[str, str], window_ms: int = WINDOW_MS) -> Any:
    """The letter of each (id, digest), or the words of an error."""
    words = [word for event in events for word in event]
    reply = shop.desk.run("ingest", [KEYS.epoch, KEYS.stream, IDS], window_ms, 0, b"\x80", *words)
    return reply[0] if isinstance(reply, tuple) else reply


def test_an_event_that_is_sent_twice_is_written_once(shop: Shop) -> None:
    """Under its id the same content is a duplicate, and other content is refused."""
    told = [ingest(shop, ("x", digest)) for digest in ("one", "one", "other", "one")]
    assert told == ["a", "d", "c", "d"]
    assert shop.desk.client.xlen(KEYS.stream) == 1


def test_events_of_one_call_are_one_entry_that_names_those_it_leaves_out(shop: Shop) -> None:
    """Ids that came before, in an earlier call or in this one; where all did, there is no entry."""
    assert ingest(shop, ("x", "1"), ("y", "1"), ("x", "1"), ("x", "2")) == "aadc"
    assert ingest(shop, ("z", "1"), ("y", "2"), ("y", "1")) == "acd"
    assert ingest(shop, ("z", "1"), ("x", "1")) == "dd"
    assert ingest(shop, ("v", "1"), ("w", "1")) == "aa"
    entries = [fields for _, fields in shop.desk.client.xrange(KEYS.stream)]
    assert [fields.get(b"d") for fields in entries] == [b"2 3", b"1 2", None]


@pytest.mark.parametrize(("spans", "is_known"), [(-2, False), (-1, True), (0, True), (1, True)])
def test_an_id_is_known_for_as_long_as_the_window_reaches(shop: Shop, spans: int, *, is_known: bool) -> None:
    """In whichever span it came: the last that the window reaches into, and the next, where a clock was ahead."""
    now_ms = shop.desk.now_ms()
    into_span_ms = now_ms % SPAN_MS
    shop.desk.client.hset(f"{IDS}{now_ms // SPAN_MS + spans}", "x", "one")
    assert ingest(shop, ("x", "one"), window_ms=into_span_ms + 1 + WINDOW_MS) == ("d" if is_known else "a")


def test_ids_live_for_the_window_from_the_end_of_their_span(shop: Shop) -> None:
    """A longer window makes those that are there live longer, a shorter one takes nothing from them."""
    now_ms = shop.desk.now_ms()
    name, end_ms = f"{IDS}{now_ms // SPAN_MS}", (now_ms // SPAN_MS + 1) * SPAN_MS
    for number, window_ms in enumerate((WINDOW_MS, 10 * WINDOW_MS, WINDOW_MS)):
        ingest(shop, (f"x{number}", "1"), window_ms=window_ms)
        assert shop.desk.client.pexpiretime(name) == end_ms + max(window_ms, min(number, 1) * 10 * WINDOW_MS)


@pytest.mark.parametrize("window_ms", [0, 2**36 + 1])
def test_a_window_that_nobody_could_look_through_is_refused(shop: Shop, window_ms: int) -> None:
    """Nothing is written."""
    before = shop.desk.dump()
    assert ingest(shop, ("x", "1"), window_ms=window_ms) == "INVALID window_ms"
    assert shop.desk.dump() == before


def test_a_call_has_no_more_than_a_thousand_events(shop: Shop) -> None:
    """More would hold up all others."""
    events = [(f"x{number}", "1") for number in range(1_001)]
    assert ingest(shop, *events) == "INVALID arguments"
    assert ingest(shop, *events[:1_000]) == "a" * 1_000
