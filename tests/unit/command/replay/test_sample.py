"""The shipped sample is synthetic, and can be made again by anybody."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from billing_core.contract.shipped import shipped
from gateway.command.replay.trace import Columns, read_trace

SEED = 2718
ROWS = 300
SIZES = (((20, 400), (5, 250)), ((400, 1_800), (20, 400)), ((1_800, 6_000), (1, 120)))
WEIGHTS = (5, 4, 1)


def make_sample() -> str:
    """Ten minutes or so of chat, of questions about a page, and of long documents, in bursts."""
    chance = random.Random(SEED)
    at = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for _ in range(ROWS):
        burst = chance.randrange(4) == 0
        at += timedelta(milliseconds=chance.randrange(1, 150) if burst else chance.randrange(150, 5_000))
        (least, most), (shortest, longest) = chance.choices(SIZES, WEIGHTS)[0]
        tokens = f"{chance.randrange(least, most)},{chance.randrange(shortest, longest)}"
        lines.append(f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1_000:03d}0000,{tokens}")
    return "\n".join(lines) + "\n"


def test_the_sample_is_what_its_seed_makes() -> None:
    """No row of it comes from anybody's traffic."""
    assert shipped("samples/llm_requests.csv").read_text("utf-8") == make_sample()


def test_the_sample_is_a_trace() -> None:
    """It is read by the same reader as any file."""
    trace = read_trace(shipped("samples/llm_requests.csv"), Columns())
    assert len(trace.requests) == ROWS
    assert trace.requests[0].row == 2
    assert trace.input_units > trace.output_units > 0
