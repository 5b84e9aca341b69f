"""What is told later arrives, once: past a gateway that is away, answers that are lost, and kill -9."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_core.errors import ConfigurationError, Unavailable
from gateway.sdk.client import AsyncTallygate

SENDER = {
    "blocking": """
import itertools, sys
from gateway.sdk.blocking import Tallygate
url, folder = sys.argv[1:]
with Tallygate(url, on_outage="refuse", token="tgo_operator", deadline_ms=60_000, spool=folder) as tallygate:
    for number in itertools.count():
        print(tallygate.event(event="ping", customer="acme"), flush=True)
""",
    "async": """
import asyncio, itertools, sys
from gateway.sdk.client import AsyncTallygate
url, folder = sys.argv[1:]
async def main():
    terms = {"on_outage": "refuse", "token": "tgo_operator", "deadline_ms": 60_000, "spool": folder}
    async with AsyncTallygate(url, **terms) as tallygate:
        for number in itertools.count():
            print(await tallygate.event(event="ping", customer="acme"), flush=True)
            await asyncio.sleep(0)
asyncio.run(main())
""",
}
"""Tells events as fast as it can, and each id once it is on the disk."""


async def arrived(world: Any) -> Counter[str]:
    """How often each event stands in the streams."""
    return Counter(entry.body.event_id for entry in await world.entries())


def left_in(folder: Path) -> list[str]:
    """The files of a folder."""
    return [path.name for path in folder.iterdir()]


async def killed_after(lines: int, script: str, *argv: str) -> list[str]:
    """The ids that a sender has told when it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        *argv,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    told = [(await process.stdout.readline()).decode().strip() for _ in range(lines)]
    process.kill()
    rest = (await process.stdout.read()).decode().splitlines(keepends=True)
    await process.wait()
    return told + [line.strip() for line in rest if line.endswith("\n")]


@pytest.mark.parametrize("kind", ["async", "blocking"])
async def test_what_was_on_the_disk_arrives_once_though_its_process_is_killed(
    call: Any, world: Any, tmp_path: Path, kind: str
) -> None:
    """Four times, while it writes and sends; the next to open the spool brings what is left."""
    told: list[str] = []
    for lines in (1, 200, 700, 1_500):
        told += await killed_after(lines, SENDER[kind], call.url, str(tmp_path))
    async with AsyncTallygate(call.url, on_outage="refuse", token=world.token, spool=tmp_path) as tallygate:
        await tallygate.flush()
    found = await arrived(world)
    assert set(told) <= set(found)
    assert len(found) - len(told) <= 4  # on the disk, and killed before it could say so
    assert set(found.values()) == {1}
    assert left_in(tmp_path) == []


async def test_events_wait_for_a_gateway_that_is_away(
    make_door: Any, world: Any, settings: Any, open_gateway: Any, tmp_path: Path
) -> None:
    """Also past the process that told them; the gateway that comes gets all of them."""
    url = f"http://127.0.0.1:{settings.port}"
    first = make_door(url, token=world.token, spool=tmp_path, deadline_ms=50, attempt_ms=50)
    told = [await first.event(event="llm", customer="acme", fields={"input": 3, "cost": Decimal("0.25")})]
    told += [await first.event(event="ping", customer="acme", id=f"mine-{number}") for number in range(700)]
    await first.close()
    assert await arrived(world) == Counter()
    second = make_door(url, token=world.token, spool=tmp_path)
    told.append(await second.event(event="ping", customer="acme"))
    await open_gateway(settings)
    await second.flush()
    assert await arrived(world) == Counter(told)


async def test_events_whose_answers_are_lost_are_not_taken_twice(
    hole: Any, make_door: Any, world: Any, tmp_path: Path
) -> None:
    """The same ids again are duplicates."""
    hole.swallows = 3
    door = make_door(hole.url, token=world.token, spool=tmp_path)
    told = [await door.event(event="ping", customer="acme") for _ in range(50)]
    await door.flush()
    assert hole.swallowed == 3
    assert await arrived(world) == Counter(told)


async def test_what_the_gateway_refuses_for_good_is_set_aside_with_its_reason(
    door: Any, make_door: Any, world: Any, tmp_path: Path
) -> None:
    """And holds nothing up."""
    spooled = make_door(door.client._terms.url, token=world.token, spool=tmp_path)
    await spooled.event(event="ping", customer="nobody", id="bad-customer")
    await spooled.event(event="unread", customer="acme", id="bad-name")
    await spooled.event(event="ping", customer="acme", id="good")
    await spooled.record(key="tgk_nobody", feature="tokens")
    await spooled.flush()
    assert await arrived(world) == Counter(["good"])
    aside = [msgspec.json.decode(line) for line in (tmp_path / "rejected.jsonl").read_bytes().splitlines()]
    assert [one["why"].partition(":")[0] for one in aside] == ["not_found", "invalid_input", "unknown_key"]
    assert msgspec.json.decode(aside[0]["body"])["id"] == "bad-customer"


async def test_events_of_a_bad_token_wait_for_a_good_one(
    door: Any, make_door: Any, world: Any, tmp_path: Path
) -> None:
    """An operator's mistake loses nothing."""
    url = door.client._terms.url
    wrong = make_door(url, token="tgo_wrong", spool=tmp_path, deadline_ms=50, attempt_ms=50)
    event_id = await wrong.event(event="ping", customer="acme")
    await wrong.close()
    right = make_door(url, token=world.token, spool=tmp_path)
    await right.flush()
    assert await arrived(world) == Counter([event_id])


async def test_a_record_is_charged_once_though_its_answer_is_lost(
    hole: Any, make_door: Any, world: Any, tmp_path: Path, call: Any
) -> None:
    """What was done already, and is never refused."""
    await world.grant(1_000)
    door = make_door(hole.url, spool=tmp_path)
    hole.swallows = 2
    await door.record(key=world.key, feature="tokens", quantity=4)
    await door.record(key=world.key, feature="tokens", quantity=3)
    await door.flush()
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    assert body["wallets"][0]["balance_nanos"] == 300
    assert sum((await arrived(world)).values()) == 2


async def test_a_hold_whose_end_nobody_answers_is_settled_when_somebody_does(
    make_door: Any, world: Any, settings: Any, open_gateway: Any, tmp_path: Path, process: Any
) -> None:
    """The gateway dies within the block."""
    await world.grant(10_000)
    door = make_door(f"http://127.0.0.1:{settings.port}", spool=tmp_path)
    first = process(settings)
    asked = {"key": world.key, "charges": {"tokens": 50}, "ttl_ms": 600_000}

    def work(hold: Any) -> None:
        first.process.kill()
        first.process.wait()
        door.client._terms = msgspec.structs.replace(door.client._terms, deadline_ms=100, attempt_ms=100)
        hold.used({"tokens": 12})

    hold = await door.within(asked, work)
    assert (hold.id != "", hold.outcome) == (True, None)
    _, call = await open_gateway(settings)
    await door.flush()
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    assert (body["wallets"][0]["balance_nanos"], body["wallets"][0]["held_nanos"]) == (8_800, 0)


async def test_without_a_folder_nothing_is_told_later(make_door: Any) -> None:
    """It says what is missing."""
    door = make_door("http://127.0.0.1:1")
    for act in (door.event(event="ping", customer="acme"), door.record(key="k", feature="f"), door.flush()):
        with pytest.raises(ConfigurationError, match="a folder"):
            await act


async def test_events_told_now_have_an_answer_each(door: Any, world: Any) -> None:
    """Without a spool."""
    answer = await door.events(
        {"event": "ping", "customer": "acme", "id": "one"}, {"event": "ping", "customer": "nobody", "id": "two"}
    )
    assert [(one.id, one.status) for one in answer.results] == [("one", "accepted"), ("two", "rejected")]


async def test_checks_that_nobody_decided_are_charged_once_when_somebody_does(
    make_door: Any, world: Any, settings: Any, open_gateway: Any, tmp_path: Path
) -> None:
    """Where that was said; also what the wallet does not cover any more, because it was done."""
    await world.grant(1_000)
    url = f"http://127.0.0.1:{settings.port}"
    door = make_door(url, on_outage="record", spool=tmp_path, deadline_ms=50, attempt_ms=50)
    for act in (door.check, door.require):
        answer = await act(key=world.key, feature="tokens", quantity=4)
        assert (answer.allowed, answer.degraded, answer.reason.value) == (True, True, "unavailable")
    assert (await door.check(key=world.key, charges={"tokens": 5, "calls": 1})).degraded
    assert (await door.peek(key=world.key, feature="tokens", quantity=1_000)).degraded
    await door.close()
    assert await arrived(world) == Counter()
    later = make_door(url, on_outage="record", spool=tmp_path)
    _, call = await open_gateway(settings)
    await later.flush()
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    assert body["wallets"][0]["balance_nanos"] == 0
    charged = [[charge.quantity for charge in entry.charges] for entry in await world.entries()]
    assert charged == [[4], [4], [5, 1]]
    assert not (tmp_path / "rejected.jsonl").exists()


async def test_a_check_whose_answer_was_lost_is_not_charged_again_by_its_record(
    hole: Any, make_door: Any, world: Any, tmp_path: Path, call: Any, eventually: Any
) -> None:
    """The gateway had decided it: what it charged stands, and what it refused was done all the same."""
    await world.grant(1_000)
    hole.swallows = 1_000_000
    door = make_door(hole.url, on_outage="record", spool=tmp_path, deadline_ms=200, attempt_ms=200)
    for quantity in (6, 7):
        assert (await door.check(key=world.key, feature="tokens", quantity=quantity)).degraded
    await eventually(lambda: hole.swallowed > 0)
    door.client._terms = msgspec.structs.replace(door.client._terms, deadline_ms=60_000, attempt_ms=30_000)
    hole.swallows = 0
    await door.flush()
    _, body, _ = await call.get("/v1/customers/acme/wallets", token=world.token)
    assert sorted(entry.charges[0].quantity for entry in await world.entries()) == [6, 7]
    assert body["wallets"][0]["balance_nanos"] == 0


async def test_a_hold_that_nobody_placed_is_refused_also_where_checks_are_recorded(
    make_door: Any, free_port: Any, world: Any, tmp_path: Path
) -> None:
    """Nobody could tell later what of it was used."""
    url = f"http://127.0.0.1:{free_port()}"
    door = make_door(url, on_outage="record", spool=tmp_path, deadline_ms=50, attempt_ms=50)
    with pytest.raises(Unavailable):
        await door.within({"key": world.key, "charges": {"tokens": 1}, "ttl_ms": 60_000}, lambda _: None)
    assert (await arrived(world)) == Counter()


async def test_a_check_that_can_not_be_kept_is_refused(
    make_door: Any, free_port: Any, world: Any, tmp_path: Path
) -> None:
    """Work that nobody would be charged for is not allowed."""
    url = f"http://127.0.0.1:{free_port()}"
    door = make_door(url, on_outage="record", spool=tmp_path, deadline_ms=50, attempt_ms=50)
    assert (await door.check(key=world.key, feature="tokens")).degraded
    spool = door.client._wanted()
    spool._max_bytes = spool.waiting_bytes
    with pytest.raises(Unavailable, match="cannot keep the charge"):
        await door.check(key=world.key, feature="tokens")


async def test_events_arrive_also_where_each_waits_for_the_disk(
    make_door: Any, world: Any, call: Any, tmp_path: Path
) -> None:
    """In their order, once each."""
    door = make_door(call.url, token=world.token, spool=tmp_path, fsync=True)
    told = [await door.event(event="ping", customer="acme") for _ in range(20)]
    await door.record(key=world.key, feature="tokens")
    await door.flush()
    found = await arrived(world)
    assert [found[one] for one in told] == [1] * 20
    assert len(found) == 21
