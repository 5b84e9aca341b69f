"""What both sides share: names in Redis, usage entries, problems."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest

from billing_core.contract import keys
from billing_core.contract.problem import decode_json
from billing_core.contract.usage_event import (
    Charge,
    EntryKind,
    EventBody,
    Movement,
    StreamPosition,
    decode_entries,
    decode_entry,
    encode_body,
    encode_client_body,
    encode_record,
)
from billing_core.errors import InvalidInput, InvariantBroken, UnknownField
from billing_core.values.ids import Code


def test_a_customer_keeps_its_shard_for_good() -> None:
    """The hash is part of the data: these values may never change."""
    assert keys.shard_of_customer("demo", "acme") == 886
    assert keys.shard_of_customer("t", "c") == 773
    assert keys.shard_of_event("t", "c") == 616
    assert keys.shard_of_event("t", "d") == 424


def test_all_keys_of_a_customer_share_one_hash_tag() -> None:
    """One script may touch them all, on any node."""
    names = keys.customer_keys("demo", "acme")
    texts = [value for value in msgspec.structs.astuple(names) if isinstance(value, str)]
    assert {text[: len("{s0886}")] for text in texts} == {"{s0886}"}
    assert len(texts) == len(set(texts)) == 8


def test_shards_spread_evenly_and_fill_every_lane() -> None:
    """No lane is left without work."""
    shards = [keys.shard_of_customer("t", f"c{n}") for n in range(20_000)]
    assert len(set(shards)) == keys.SHARD_COUNT
    assert {keys.lane_of(shard) for shard in range(keys.SHARD_COUNT)} == set(range(keys.LANE_COUNT))


def test_a_hold_id_says_where_the_hold_lives() -> None:
    """Nobody has to be asked where to settle."""
    for shard in (0, 17, 1023):
        assert keys.shard_of_hold(keys.new_hold_id(shard)) == shard
    assert len({keys.new_hold_id(1) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "text", ["", "hold_", "hold_" + "g" * 32, "hold_" + "0" * 31, "hold_fff" + "0" * 29, "held_" + "0" * 32]
)
def test_what_is_no_hold_id_names_no_shard(text: str) -> None:
    """Junk reaches no script."""
    assert keys.shard_of_hold(text) is None


FIELDS = {
    b"k": b"settle", b"at": b"1700000000000", b"q": b"374 44", b"c": b"935000 440000", b"u": b"0 7",
    b"s": b"935000 440007", b"m": b"gra_a=900000 gra_b=475000", b"w": b"USD -", b"e": b"3",
}  # fmt: skip


def entry_fields(**changes: bytes) -> dict[bytes, bytes]:
    body = EventBody(event_id="dec_1", tenant_id="t", customer_id="c", features=("in", "out"))
    return {**FIELDS, b"b": encode_body(body), **{name.encode(): value for name, value in changes.items()}}


def test_an_entry_is_read_as_it_was_written() -> None:
    """Charges stand in the order of the body's features."""
    entry = decode_entry(b"1700000000001-2", entry_fields())
    assert entry.position == StreamPosition(1700000000001, 2)
    assert entry.charges == (
        Charge(
            feature="in",
            quantity=374,
            charged_nanos=935000,
            uncollected_nanos=0,
            rated_nanos=935000,
            currency="USD",
        ),
        Charge(
            feature="out",
            quantity=44,
            charged_nanos=440000,
            uncollected_nanos=7,
            rated_nanos=440007,
            currency="",
        ),
    )
    assert entry.movements == (Movement(grant_id="gra_a", nanos=900000), Movement(grant_id="gra_b", nanos=475000))


def test_what_shadow_mode_did_not_refuse_charges_nothing() -> None:
    """It tells the reason and the level, and what was asked for."""
    fields = entry_fields(k=b"shadow", r=b"limit_reached", l=b"team:ml", q=b"5 -2")
    for column in (b"c", b"u", b"s", b"m", b"w"):
        del fields[column]
    entry = decode_entry(b"1-0", fields)
    assert (entry.refusal, entry.level, entry.currency) == ("limit_reached", "team:ml", "")
    assert [(charge.quantity, charge.charged_nanos) for charge in entry.charges] == [(5, 0), (-2, 0)]


def test_tomorrows_gateway_may_write_for_todays_worker() -> None:
    """Unknown fields of a body are passed over, not refused."""
    body = msgspec.msgpack.encode({"event_id": "e", "tenant_id": "t", "customer_id": "c", "colour": "blue"})
    entry = decode_entry(b"1-0", {b"k": b"lapse", b"b": body, b"at": b"5"})
    assert entry.body.event_id == "e"
    told = msgspec.msgpack.encode(["t", [["e", "llm", 5, "c", {}, "blue"]], "green"])
    (entry,) = decode_entries(b"1-0", {b"k": b"event", b"b": told, b"at": b"5"})
    assert (entry.body.event_id, entry.body.tenant_id, entry.body.customer_id) == ("e", "t", "c")


def client_entry(**changes: bytes) -> dict[bytes, bytes]:
    fields = {"input": 374, "cost": b"1.25", "model": "small"}
    records = [encode_record((f"e{n}", "llm", 5 + n, "c", fields)) for n in range(3)]
    entry = {b"k": b"event", b"b": encode_client_body("t", records), b"at": b"9", b"e": b"3"}
    return entry | {name.encode(): value for name, value in changes.items()}


def test_an_entry_of_events_is_read_event_by_event() -> None:
    """But for those that are left out; each knows its place. Any other entry is one."""
    entries = decode_entries(b"7-1", client_entry(d=b"1"))
    assert [(one.part, one.body.event_id, one.body.event_at_ms) for one in entries] == [(0, "e0", 5), (2, "e2", 7)]
    assert {(one.kind, one.decided_at_ms, one.epoch, one.position) for one in entries} == {
        (EntryKind.EVENT, 9, 3, StreamPosition(7, 1))
    }
    assert entries[0].body.properties == {"input": "374", "cost": "1.25", "model": "small"}
    assert decode_entries(b"1-0", entry_fields()) == [decode_entry(b"1-0", entry_fields())]


@pytest.mark.parametrize(
    "changes",
    [
        {"b": b"\xc1"},
        {"b": msgspec.msgpack.encode(["t", [["e", "llm", 5, "c"]]])},
        {"b": msgspec.msgpack.encode(["t", [["e", "llm", 5, "c", {"n": 1.5}]]])},
        {"b": msgspec.msgpack.encode(["t", [["e", "llm", 5, "c", {"n": True}]]])},
        {"d": b"3"},
        {"d": b"-1"},
        {"d": b"one"},
        {"at": b"soon"},
    ],
)
def test_an_entry_of_events_that_no_script_writes_breaks_a_law(changes: dict[str, bytes]) -> None:
    """As any other."""
    with pytest.raises(InvariantBroken, match="7-1"):
        decode_entries(b"7-1", client_entry(**changes))


def test_the_ids_of_a_tenant_are_spread_over_one_shard_in_each_lane() -> None:
    """And each over the same for good."""
    shards = keys.shards_of_events("t")
    assert sorted(map(keys.lane_of, shards)) == list(range(keys.LANE_COUNT))
    assert {keys.shard_of_event("t", f"e{n}") for n in range(1_000)} == set(shards)
    assert keys.shards_of_events("other") != shards


@pytest.mark.parametrize(
    "changes",
    [{"k": b"gift"}, {"at": b"soon"}, {"b": b"\xc1"}, {"q": b"1"}, {"m": b"gra_a"}, {"c": b"1 x"}, {"w": b"USD"}],
)
def test_an_entry_that_no_script_writes_breaks_a_law(changes: dict[str, bytes]) -> None:
    """It is said, not guessed at."""
    with pytest.raises(InvariantBroken, match="1-0"):
        decode_entry(b"1-0", entry_fields(**changes))


def test_stream_positions_sort_as_redis_sorts_them() -> None:
    """By number, not by text."""
    assert StreamPosition.parse("9-10") > StreamPosition.parse("9-9")
    assert StreamPosition.parse("10-0") > StreamPosition.parse("9-99")
    assert str(StreamPosition.parse("10-3")) == "10-3"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    quantity: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    charges: list[Inner]
    name: Code = "x"


DECODER = msgspec.json.Decoder(Outer)


@pytest.mark.parametrize(
    ("raw", "kind", "field"),
    [
        (b"{", InvalidInput, "body"),
        (b"\xff", InvalidInput, "body"),
        (b"", InvalidInput, "body"),
        (b"[]", InvalidInput, "body"),
        (b"[" * 100_000, InvalidInput, "body"),
        (b"{}", InvalidInput, "charges"),
        (b'{"charges": [], "color": 1}', UnknownField, "color"),
        (b'{"charges": [{"quantity": 1.5}]}', InvalidInput, "charges[0].quantity"),
        (b'{"charges": [{"quantity": 1, "x": 2}]}', UnknownField, "charges[0].x"),
        (b'{"charges": [{}]}', InvalidInput, "charges[0].quantity"),
        (b'{"charges": [], "name": 5}', InvalidInput, "name"),
    ],
)
def test_a_body_that_breaks_a_rule_names_field_and_rule(raw: bytes, kind: type[InvalidInput], field: str) -> None:
    """The caller can mend it without reading our code."""
    with pytest.raises(InvalidInput) as caught:
        decode_json(raw, DECODER)
    assert (type(caught.value), caught.value.field) == (kind, field)
    assert caught.value.detail != ""


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b'{"charges": [{"quantity": 1.5}]}', "must be a whole number"),
        (b'{"charges": [{"quantity": -1}]}', "must be at least 0"),
        (b'{"charges": [{"quantity": 9007199254740992}]}', "must be at most 9007199254740991"),
        (b'{"charges": [], "name": "a b"}', "must be 1 to 64 letters, digits"),
        (b'{"charges": [], "colour": 1}', "unknown field"),
        (b"{}", "is required"),
    ],
)
def test_a_rule_is_told_in_words(raw: bytes, rule: str) -> None:
    """Not as the pattern or the type that found it broken."""
    with pytest.raises(InvalidInput, match=f"^{rule}"):
        decode_json(raw, DECODER)
