"""What comes in is typed and bounded."""

from __future__ import annotations

import msgspec
import pytest
from multidict import MultiDict

from billing_core.api.page import PageQuery
from billing_core.api.wire import check_path, decode_body, decode_query
from billing_core.errors import InvalidInput, NotFound, UnknownField
from billing_core.values.ids import Code
from billing_core.values.text import Amount, Instant, Label, grant_nanos, payment_minor


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    text: str = ""


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: Code = "c"
    label: Label = ""
    amount: Amount = "1"
    at: Instant | None = msgspec.field(default=None, name="from")
    parts: tuple[Part, ...] = ()


DECODER = msgspec.json.Decoder(Body)


@pytest.mark.parametrize(
    ("raw", "field", "rule"),
    [
        (b"{", "body", "not a JSON document"),
        (b"\xff", "body", "not a JSON document"),
        (b'{"label":"\xff"}', "body", "not a JSON document"),
        (b"[" * 100_000, "body", "expected `object`"),
        (b'{"a":' + b"[" * 100_000, "a", "unknown field"),
        (b'{"code":"no code"}', "code", "must be 1 to 64 letters, digits"),
        (b'{"code":""}', "code", "must be 1 to 64 letters, digits"),
        (b'{"label":"two\\nlines"}', "label", "must be one line of at most 200 characters"),
        (b'{"label":"a\\u0000b"}', "label", "must be one line"),
        (b'{"amount":"-1"}', "amount", "must be a decimal number without a sign"),
        (b'{"amount":"1e3"}', "amount", "must be a decimal number without a sign"),
        (b'{"amount":"0.0000000001"}', "amount", "at most 9 digits after the point"),
        (b'{"amount":"\xd9\xa1"}', "amount", "must be a decimal number"),
        (b'{"amount":1}', "amount", "expected `str`, got `int`"),
        (b'{"from":"2026-01-01T00:00:00"}', "from", "timezone"),
        (b'{"from":"0001-01-01T00:00:00+14:00"}', "from", "from 1970 until 2200"),
        (b'{"from":"9999-12-31T23:59:59-14:00"}', "from", "from 1970 until 2200"),
        (b'{"parts":[{},{"text":"a\\u0000b"}]}', "parts[1].text", "must have no zero byte"),
        (b'{"parts":[{"text":"' + b"x" * 1001 + b'"}]}', "parts[0].text", "at most 1000 characters"),
        (b'{"parts":[{"more":1}]}', "parts[0].more", "unknown field"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_by_field_and_rule(raw: bytes, field: str, rule: str) -> None:
    """In words, not in patterns."""
    with pytest.raises(InvalidInput, match=rule) as failure:
        decode_body(raw, DECODER)
    assert failure.value.field == field


def test_no_body_at_all_is_an_empty_one() -> None:
    """A POST that has nothing to say may say nothing."""
    assert decode_body(b"", DECODER) == Body()


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "501")], "limit"),
        ([("limit", "1.5")], "limit"),
        ([("limit", "x")], "limit"),
        ([("limit", "1"), ("limit", "2")], "limit"),
        ([("cursor", "x" * 401)], "cursor"),
        ([("cursor", "a\0b")], "cursor"),
    ],
)
def test_a_query_string_that_breaks_a_rule_is_refused_by_field(query: list[tuple[str, str]], field: str) -> None:
    """Numbers are read out of their text, and nothing is given twice."""
    with pytest.raises(InvalidInput) as failure:
        decode_query(MultiDict(query), PageQuery)
    assert failure.value.field == field


def test_an_unknown_name_in_a_query_string_is_refused() -> None:
    """A misspelt filter would otherwise show everything."""
    with pytest.raises(UnknownField):
        decode_query(MultiDict({"custmer": "x"}), PageQuery)
    assert decode_query(MultiDict({"limit": "7"}), PageQuery) == PageQuery(limit=7)


def test_a_name_in_a_path_that_nothing_can_have_is_not_found() -> None:
    """So that no query ever sees it."""
    check_path({"customer_id": "acme"})
    for name in ("a\0b", "", "a b", "a" * 65, "\N{SNOWMAN}"):
        with pytest.raises(NotFound, match="there is no such customer") as failure:
            check_path({"customer_id": name})
        assert failure.value.field == "customer_id"


@pytest.mark.parametrize(
    ("text", "currency", "field"),
    [
        ("0", "USD", "amount"),
        ("0.000000000", "USD", "amount"),
        ("9007199.254740992", "USD", "amount"),
        ("999999999999999", "USD", "amount"),
        ("1", "X", "currency"),
        ("1", "usd", "currency"),
    ],
)
def test_credit_is_above_zero_and_below_two_to_the_53(text: str, currency: str, field: str) -> None:
    """In a currency that ISO 4217 knows, or in what can be a unit of the tenant."""
    with pytest.raises(InvalidInput) as failure:
        grant_nanos(text, currency, field="amount")
    assert failure.value.field == field


def test_money_that_is_paid_has_whole_minor_units() -> None:
    """2 digits for dollars, none for yen, 3 for dinars; credit may be finer."""
    assert grant_nanos("0.000000001", "USD", field="amount") == 1
    assert grant_nanos("9007199.254740991", "USD", field="amount") == 2**53 - 1
    assert payment_minor("25.00", "USD", field="amount") == 2500
    assert payment_minor("25.0000", "JPY", field="amount") == 25
    assert payment_minor("1.234", "KWD", field="amount") == 1234
    for text, currency in (("1.234", "USD"), ("0.5", "JPY")):
        with pytest.raises(InvalidInput, match="digits after the point"):
            payment_minor(text, currency, field="amount")
