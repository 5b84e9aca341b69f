"""What has happened already is told once: records and client-sent events under a name that came before."""

from __future__ import annotations

from shop import KEYS, Shop, metered, tariff

from billing_core.contract.keys import event_id_key


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


def test_an_event_that_is_sent_twice_is_written_once(shop: Shop) -> None:
    """Under its id the same content is a duplicate, and other content is refused."""
    keys = [KEYS.epoch, KEYS.stream, event_id_key("acme", "x")]
    told = [shop.desk.run("ingest", keys, digest, 60_000, b"\x80", 0) for digest in ("one", "one", "other", "one")]
    assert told == [1, 0, -1, 0]
    assert shop.desk.client.xlen(KEYS.stream) == 1
