"""Slots as the server counts them, and whom to believe of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from billing_core.contract.cluster import Range, Survey, best_of, slot_of, survey_of
from billing_core.contract.keys import customer_keys


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 12739),
        ("{s0421}:epoch", 861),
        ("s0421", 861),
        ("a{}b", 13694),
        ("{}", 15257),
        ("{{a}b", 10276),
    ],
)
def test_a_key_has_the_slot_that_the_server_gives_it(key: str, slot: int) -> None:
    """The first is the example of the specification; the others are what CLUSTER KEYSLOT answers."""
    assert slot_of(key) == slot_of(key.encode()) == slot


def test_all_of_a_customer_is_in_one_slot() -> None:
    """Else no script could touch it in one step."""
    keys = customer_keys("t", "acme")
    names = (keys.epoch, keys.stream, keys.shard_holds, keys.snapshot, keys.counters, keys.wallet, keys.holds)
    assert len({slot_of(name) for name in (*names, keys.idempotency_prefix + "{x}")}) == 1


def test_a_node_without_an_address_of_its_own_is_where_it_was_asked() -> None:
    """Redis leaves it empty where it was never told."""
    about = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"
    slots = [[0, 16383, [b"", 6379, b"id", []], [b"h2", 6380, b"id2", []]]]
    survey = survey_of(about, slots, asked_host="h")
    assert (survey.is_ok, survey.epoch) == (True, 7)
    assert survey.ranges == (Range(first=0, last=16383, host="h", port=6379, replicas=1),)


def survey(epoch: int, *, is_ok: bool = True) -> Survey:
    return Survey(is_ok=is_ok, epoch=epoch, ranges=(Range(first=0, last=1, host="h", port=epoch, replicas=0),))


async def says(answer: Survey | None) -> Survey | None:
    return answer


async def hangs() -> Survey | None:
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("asked", "believed"),
    [
        ([], None),
        ([says(None)], None),
        ([says(survey(2)), says(survey(3)), says(survey(1))], 3),
        ([says(survey(9, is_ok=False)), says(survey(3))], 3),
        ([says(survey(9, is_ok=False)), says(None)], 9),
        ([says(Survey(is_ok=True, epoch=9, ranges=())), says(survey(1))], 1),
        ([hangs(), says(survey(4))], 4),
    ],
)
async def test_the_latest_word_of_the_majority_is_believed(
    asked: list[Coroutine[Any, Any, Survey | None]], believed: int | None
) -> None:
    """Not that of a node that is cut off, nor of one that knows nothing; and one that hangs holds nobody up."""
    best = await best_of(asked)
    assert (best and best.epoch) == believed
