"""Rows out of bytes, against the readable decoder of the same bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billing_core.contract.usage_event import (
    EntryKind,
    EventBody,
    decode_entries,
    decode_entry,
    encode_body,
    encode_client_body,
    encode_record,
)
from billing_core.flows.transcribe import Transcript
from billing_core.store.binary_copy import numeric
from billing_core.store.usage import MOVEMENT_COLUMNS, SHADOW_COLUMNS, USAGE_COLUMNS
from billing_core.values.clock import from_ms

EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)
BODY = EventBody(
    event_id="dec_1",
    tenant_id="acme",
    customer_id="zoë",
    features=("input", "output"),
    key_hint="ab12",
)
ENTRY = {
    b"k": b"debit",
    b"b": encode_body(BODY),
    b"at": b"1772000000123",
    b"q": b"374 44",
    b"c": b"935000 440000",
    b"u": b"0 7",
    b"s": b"935000 440007",
    b"m": b"gra_1=1000000 gra_2=375000",
    b"w": b"USD USD",
    b"e": b"3",
}


READERS = {
    "int4": lambda raw: int.from_bytes(raw, "big", signed=True),
    "instant": lambda raw: EPOCH_2000 + timedelta(microseconds=int.from_bytes(raw, "big", signed=True)),
    "numeric": lambda raw: raw,
    "text": bytes.decode,
}
KINDS = {
    **dict.fromkeys(("shard", "stream_ms", "stream_seq", "part", "nanos"), "int4"),
    **dict.fromkeys(("charged_nanos", "uncollected_nanos", "rated_nanos"), "int4"),
    **dict.fromkeys(("event_at", "decided_at"), "instant"),
    **dict.fromkeys(("quantity", "properties"), "numeric"),
}


def read_row(row: bytes, columns: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a row in COPY's binary format, but for `recorded_at`, which it lacks."""
    assert int.from_bytes(row[:2], "big") == len(columns)
    fields: dict[str, Any] = {}
    place = 2
    for column in columns[:-1]:
        length = int.from_bytes(row[place : place + 4], "big", signed=True)
        place += 4
        raw = row[place : place + length] if length >= 0 else None
        place += max(length, 0)
        fields[column] = None if raw is None else READERS[KINDS.get(column, "text")](raw)
    assert place == len(row)
    return fields


def transcript_of(fields: dict[bytes, bytes], **more: object) -> Transcript:
    transcript = Transcript(**more)
    transcript.add(5, [(b"1772000000200-4", [part for pair in fields.items() for part in pair])])
    return transcript


@pytest.mark.parametrize("told", [{b"k": b"debit"}, {b"k": b"settle"}, {b"k": b"settle", b"n": b"2"}])
def test_the_rows_say_what_the_decoder_says(told: dict[bytes, bytes]) -> None:
    """Column by column; a numbered entry, whose body is another one's too, has an event id of its own."""
    fields = ENTRY | told
    entry = decode_entry(b"1772000000200-4", fields)
    assert entry.body.event_id == ("dec_1.2" if b"n" in told else "dec_1")
    transcript = transcript_of(fields)
    usage = [read_row(row, USAGE_COLUMNS) for row in transcript.usage]
    assert [row["part"] for row in usage] == [0, 1]
    for row, charge in zip(usage, entry.charges, strict=True):
        assert (row["shard"], row["stream_ms"], row["stream_seq"]) == (5, entry.position.ms, entry.position.seq)
        assert (row["tenant_id"], row["customer_id"]) == (entry.body.tenant_id, entry.body.customer_id)
        assert (row["event_id"], row["key_hint"]) == (entry.body.event_id, entry.body.key_hint)
        assert (row["name"], row["quantity"]) == (charge.feature, numeric(str(charge.quantity))[4:])
        assert (row["charged_nanos"], row["uncollected_nanos"]) == (charge.charged_nanos, charge.uncollected_nanos)
        assert (row["rated_nanos"], row["path"]) == (charge.rated_nanos, entry.body.path)
        assert row["event_at"] == row["decided_at"] == datetime(2026, 2, 25, 6, 13, 20, 123000, tzinfo=UTC)
        assert (row["source"], row["currency"], row["properties"]) == ("gate", charge.currency, None)
    movements = [read_row(row, MOVEMENT_COLUMNS) for row in transcript.movements]
    for row, movement in zip(movements, entry.movements, strict=True):
        assert (row["grant_id"], row["nanos"]) == (movement.grant_id, movement.nanos)
        assert (row["kind"], row["currency"]) == (entry.kind, entry.currency)
        assert row["event_id"] == entry.body.event_id


ONE = ENTRY | {
    b"b": encode_body(
        msgspec.structs.replace(BODY, event_id="dec_" + "0" * 32, features=("input",), path="team:ml")
    ),
    b"q": b"374",
    b"c": b"935000",
    b"u": b"7",
    b"s": b"935007",
    b"m": b"gra_1=935000",
    b"w": b"USD",
}


@pytest.mark.parametrize("told", [{}, {b"k": b"settle", b"n": b"3"}])
def test_one_charge_that_one_grant_paid_is_written_as_all_others_are(told: dict[bytes, bytes]) -> None:
    """It has a way of its own, which the same entry does not take where some grant is a stranger."""
    short, general = transcript_of(ONE | told), transcript_of(ONE | told, strangers={("acme", "gra_9")})
    assert (len(short.usage), len(short.movements)) == (1, 1)
    assert (short.usage, short.movements, short.moves()) == (general.usage, general.movements, general.moves())
    entry = decode_entry(b"1772000000200-4", ONE | told)
    row = read_row(short.usage[0], USAGE_COLUMNS)
    assert (row["event_id"], row["path"], row["charged_nanos"]) == (entry.body.event_id, "team:ml", 935_000)
    assert (row["uncollected_nanos"], row["rated_nanos"], row["name"]) == (7, 935_007, "input")


@pytest.mark.parametrize(
    "broken",
    [
        {b"m": b"gra_1=934999"},
        {b"m": b"gra_1=0", b"c": b"0"},
        {b"m": b"gra_1="},
        {b"c": b"935000 1"},
        {b"q": b"374 44"},
        {b"q": b""},
        {b"w": b"USD EUR"},
        {b"w": b""},
        {b"u": b""},
        {b"s": b"x"},
        {b"b": b"\xc1"},
        {b"at": b"soon"},
    ],
)
def test_one_charge_is_written_whole_or_parked_whole(broken: dict[bytes, bytes]) -> None:
    """Whatever is wrong with it, no row of it is kept and no grant is moved."""
    transcript = transcript_of(ONE | broken)
    assert (transcript.usage, transcript.movements, transcript.moves()) == ([], [], [])
    assert len(transcript.parked) == 1


def test_what_is_taken_out_of_a_grant_is_added_up_spent_and_lapsed_apart() -> None:
    """One update a grant and batch, however many entries moved it."""
    transcript = Transcript()
    lapse = encode_body(EventBody(event_id="lap_1", tenant_id="acme", customer_id="zoë", grant_id="gra_2"))
    late = {b"k": b"lapse", b"b": lapse, b"at": b"1772000009000", b"m": b"gra_2=5", b"w": b"USD", b"e": b"3"}
    for number, fields in enumerate([ENTRY, ENTRY, late]):
        flat = [part for pair in fields.items() for part in pair]
        transcript.add(5, [(b"1772000000200-%d" % number, flat)])
    moves = {move.grant_id: move for move in transcript.moves()}
    assert (moves["gra_1"].spent_nanos, moves["gra_1"].lapsed_nanos) == (2_000_000, 0)
    assert (moves["gra_2"].spent_nanos, moves["gra_2"].lapsed_nanos) == (750_000, 5)
    assert moves["gra_2"].last_at > moves["gra_1"].last_at
    kinds = [read_row(row, MOVEMENT_COLUMNS)["kind"] for row in transcript.movements]
    assert kinds == ["debit"] * 4 + [EntryKind.LAPSE]


MIXED = ENTRY | {b"w": b"USD EUR", b"m": b"gra_1=935000 gra_2=440000"}
IN_USD_AND_EUR = {("acme", "gra_1"): "USD", ("acme", "gra_2"): "EUR"}


def test_an_entry_in_two_currencies_waits_until_its_grants_are_known() -> None:
    """Then each movement is in the currency of its grant; the entries around it do not wait."""
    first = transcript_of(MIXED)
    assert first.is_mixed
    assert first.grants() == IN_USD_AND_EUR.keys()
    assert (first.usage, first.movements, first.parked) == ([], [], [])
    second = transcript_of(MIXED, currencies=IN_USD_AND_EUR)
    assert not second.is_mixed
    assert [read_row(row, USAGE_COLUMNS)["currency"] for row in second.usage] == ["USD", "EUR"]
    told = [read_row(row, MOVEMENT_COLUMNS) for row in second.movements]
    assert [(row["grant_id"], row["currency"], row["nanos"]) for row in told] == [
        ("gra_1", "USD", 935_000),
        ("gra_2", "EUR", 440_000),
    ]


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        (b"gra_1=935001 gra_2=439999", "charges 935000 nanos of USD and moves 935001"),
        (b"gra_2=1375000", "charges 935000 nanos of USD and moves 0"),
    ],
)
def test_charges_are_movements_currency_by_currency(moved: bytes, reason: str) -> None:
    """The sum over both would be right."""
    transcript = transcript_of(MIXED | {b"m": moved}, currencies=IN_USD_AND_EUR)
    assert not transcript.usage
    ((*_, told, _),) = transcript.parked
    assert reason in str(told)


def test_a_charge_that_nothing_is_priced_for_has_no_currency() -> None:
    """The column says `-`; the others are in theirs."""
    fields = ENTRY | {b"c": b"0 440000", b"s": b"0 440000", b"w": b"- EUR", b"m": b"gra_2=440000"}
    transcript = transcript_of(fields)
    assert [read_row(row, USAGE_COLUMNS)["currency"] for row in transcript.usage] == ["", "EUR"]
    assert [read_row(row, MOVEMENT_COLUMNS)["currency"] for row in transcript.movements] == ["EUR"]


REPAY = {
    b"k": b"repay",
    b"b": encode_body(EventBody(event_id="rep_1", tenant_id="acme", customer_id="zoë", grant_id="gra_1")),
    b"at": b"1772000000123",
    b"m": b"gra_1=70 gra_2=-50 gra_3=-20",
    b"w": b"USD",
    b"e": b"3",
}


def test_a_repayment_takes_from_the_new_grant_what_it_gives_to_overdrafts() -> None:
    """Movements below zero; one that does not add up to nothing is parked."""
    transcript = transcript_of(REPAY)
    told = [read_row(row, MOVEMENT_COLUMNS) for row in transcript.movements]
    assert [(row["kind"], row["grant_id"]) for row in told] == [("repay", f"gra_{n}") for n in (1, 2, 3)]
    assert {move.grant_id: move.spent_nanos for move in transcript.moves()} == {
        "gra_1": 70,
        "gra_2": -50,
        "gra_3": -20,
    }
    assert not transcript.usage
    assert len(transcript_of(REPAY | {b"m": b"gra_1=70 gra_2=-50"}).parked) == 1


def test_what_shadow_mode_did_not_refuse_is_no_usage() -> None:
    """A row for each charge in a table of its own, with the reason and the level."""
    fields = {b"k": b"shadow", b"b": ENTRY[b"b"], b"at": b"1772000000123", b"q": b"374 -2", b"e": b"3"}
    transcript = transcript_of(fields | {b"r": b"limit_reached", b"l": b"team:ml"})
    assert (transcript.usage, transcript.movements, transcript.parked) == ([], [], [])
    rows = [dict(zip(SHADOW_COLUMNS, row, strict=False)) for row in transcript.shadows]
    assert [(row["part"], row["quantity"], row["reason"], row["level"]) for row in rows] == [
        (0, 374, "limit_reached", "team:ml"),
        (1, -2, "limit_reached", "team:ml"),
    ]
    assert set(rows[0]) == set(SHADOW_COLUMNS) - {"recorded_at"}


def test_an_entry_with_one_stranger_among_its_grants_is_parked_whole() -> None:
    """Neither its rows nor what it takes out of the known grant is left behind."""
    transcript = transcript_of(ENTRY, strangers={("acme", "gra_2")})
    assert not transcript.usage
    assert not transcript.movements
    assert not transcript.moves()
    assert len(transcript.parked) == 1


Sent = tuple[str, str, int, str, dict[str, Any]]


def events(*records: Sent, **more: bytes) -> dict[bytes, bytes]:
    """An entry of client-sent events of the tenant `acme`."""
    body = encode_client_body("acme", [encode_record(one) for one in records])
    return {b"k": b"event", b"b": body, b"at": b"1772000000123", b"e": b"3"} | {
        name.encode(): value for name, value in more.items()
    }


SENT: list[Sent] = [
    (f"e{n}", "llm", 1_772_000_000_123 + n, "zoë", {"input": n, "cost": b"1.25", "quantity": 3}) for n in range(3)
]


@pytest.mark.parametrize("told", [{}, {"d": b"1"}, {"d": b"0 1 2"}])
def test_the_rows_of_events_say_what_the_decoder_says(told: dict[str, bytes]) -> None:
    """A row for each, but for those that are left out; its part is its place."""
    fields = events(*SENT, **told)
    transcript = transcript_of(fields)
    entries = decode_entries(b"1772000000200-4", fields)
    rows = [read_row(row, USAGE_COLUMNS) for row in transcript.usage]
    assert len(rows) == 3 - len(told.get("d", b"").split())
    for row, entry in zip(rows, entries, strict=True):
        body = entry.body
        assert (row["shard"], row["stream_ms"], row["stream_seq"]) == (5, entry.position.ms, entry.position.seq)
        assert (row["tenant_id"], row["customer_id"], row["event_id"]) == ("acme", body.customer_id, body.event_id)
        assert (row["part"], row["name"], row["source"]) == (entry.part, body.name, "client")
        assert row["event_at"] == from_ms(body.event_at_ms)
        assert row["decided_at"] == from_ms(entry.decided_at_ms)
        assert row["quantity"] == numeric("3")[4:]
        assert msgspec.json.decode(row["properties"][1:]) == body.properties
        assert (row["currency"], row["key_hint"], row["path"]) == ("", "", "")
        assert (row["charged_nanos"], row["uncollected_nanos"], row["rated_nanos"]) == (0, 0, 0)
    assert (transcript.movements, transcript.parked) == ([], [])


def test_events_tell_the_months_that_they_happened_in() -> None:
    """Each month needs its partition, and so does that of the decision."""
    said: list[Sent] = [
        ("a", "n", 0, "c", {}),
        ("b", "n", 86_400_000 * 31 - 1, "c", {}),
        ("c", "n", 86_400_000 * 31, "c", {}),
    ]
    assert sorted(transcript_of(events(*said)).months) == [(1970, 1), (1970, 2), (2026, 2)]


@pytest.mark.parametrize(
    "broken",
    [
        {"b": b"\xc1"},
        {"b": encode_client_body("acme", [encode_record(("e", "n", 2**62, "c", {}))])},
        {"b": encode_client_body("acme", [encode_record(SENT[0]), encode_record(("e", "n", 5, "c", {"n": None}))])},
        {"d": b"7"},
        {"at": b"soon"},
    ],
)
def test_an_entry_of_events_is_written_whole_or_parked_whole(broken: dict[str, bytes]) -> None:
    """One that cannot be read takes the others with it; nothing is lost, and somebody looks."""
    transcript = transcript_of(events(*SENT, **broken))
    assert (transcript.usage, len(transcript.parked)) == ([], 1)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [("2.50", "2.50"), ("0", "0"), ("", "1"), ("NaN", "1"), ("-3", "1"), ("1e5", "1"), ("٣", "1"), ("1.2.3", "1")],
)
def test_a_client_says_its_quantity_in_plain_decimals_or_it_is_one(text: str, quantity: str) -> None:
    """Numbers were checked at the gateway; what only looks like one is a text."""
    transcript = transcript_of(events(("e", "n", 5, "c", {"quantity": text})))
    assert read_row(transcript.usage[0], USAGE_COLUMNS)["quantity"] == numeric(quantity)[4:]


@pytest.mark.parametrize("features", [("input", "output"), ("input",)])
def test_the_evidence_of_a_charge_stays_with_it(features: tuple[str, ...]) -> None:
    """Of a response that nobody got to its end, and of no other."""
    told = {"ending": "client_lost", "delivered_bytes": "12"}
    one = {b"q": b"374", b"c": b"1000000", b"u": b"0", b"s": b"1000000", b"w": b"USD", b"m": b"gra_1=1000000"}
    entry = ENTRY | (one if len(features) == 1 else {})
    for properties in ({}, told):
        body = msgspec.structs.replace(BODY, features=features, properties=properties)
        rows = transcript_of(entry | {b"b": encode_body(body)}).usage
        kept = [read_row(row, USAGE_COLUMNS)["properties"] for row in rows]
        assert len(rows) == len(features)
        assert [raw and msgspec.json.decode(raw[1:]) for raw in kept] == [properties or None] * len(features)
