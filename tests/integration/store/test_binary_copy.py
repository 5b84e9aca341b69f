"""Rows made in COPY's binary format, as Postgres reads them."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime
from decimal import Decimal

import asyncpg
import pytest

from billing_core.store.binary_copy import NULL, copy_data, instant, int8, jsonb, numeric, text
from billing_core.store.database import Transaction, prepare_connection

NUMBERS = ["0", "1", "374", "9999", "10000", "10001", "9007199254740991", "100000000", "0.5", "2.50", "0.0001"]
NUMBERS += ["0.00001", "123456789.987654321", "10000.0001", "0.000000000001", "0.0", "0.00", "1000000.000000"]


async def test_every_field_is_read_back_as_it_was(postgres_url: str) -> None:
    """Numbers of all sizes and scales, texts of all scripts, instants to the microsecond, documents, nothing."""
    chance = random.Random(5)
    numbers = [*NUMBERS, *(f"{chance.randrange(10 ** chance.randrange(1, 17))}" for _ in range(200))]
    numbers += [
        f"{chance.randrange(10**6)}.{chance.randrange(10**9):0{chance.randrange(9, 13)}d}" for _ in range(200)
    ]
    at = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)
    document = {"größe": "9 ✓", 'quote"': "\\"}
    rows = [
        struct.pack(">h", 6) + numeric(one) + text(f"ζ{one}") + instant(at) + jsonb(document) + NULL
        for one in numbers
    ]
    connection = await asyncpg.connect(postgres_url)
    await prepare_connection(connection)
    await connection.execute(
        "CREATE TABLE kept (n numeric, t text, at timestamptz, j jsonb, nothing text, last bigint)"
    )
    columns = ("n", "t", "at", "j", "nothing", "last")
    await Transaction(connection).copy_binary("kept", columns, data=copy_data(rows, last=int8(-7)))
    found = await connection.fetch("SELECT n::text, t, at, j, nothing, last FROM kept")
    assert [row["n"] for row in found] == [f"{Decimal(one):f}" for one in numbers]
    for one, row in zip(numbers, found, strict=True):
        assert tuple(row)[1:] == (f"ζ{one}", at, document, None, -7)
    await connection.close()


@pytest.mark.parametrize("value", ["1e5", "NaN", "Infinity", "", "x"])
def test_what_is_no_plain_number_is_refused(value: str) -> None:
    """Exponents, words and nothing."""
    with pytest.raises((ValueError, ArithmeticError)):
        numeric(value)


def test_what_no_bigint_holds_is_refused() -> None:
    """Instead of wrapping around."""
    with pytest.raises(struct.error):
        int8(2**63)
