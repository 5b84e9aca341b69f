"""Both clients against a real gateway: what is answered, refused, retried and held."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from billing_core.errors import ConfigurationError, InvalidInput, NotFound, Unauthenticated, Unavailable
from gateway.admission.outcome import HoldEnd
from gateway.admission.reason import Reason
from gateway.sdk.blocking import Tallygate
from gateway.sdk.client import AsyncTallygate
from gateway.sdk.hold import Charging, current_hold
from gateway.sdk.refusal import Refused

NANOS = 100
"""Of one token."""


async def balance_of(call: Any, world: Any) -> tuple[int, int]:
    """What the wallet has, and what of it is held."""
    _, body, _ = await call.get(f"/v1/customers/{world.customer}/wallets", token=world.token)
    return body["wallets"][0]["balance_nanos"], body["wallets"][0]["held_nanos"]


async def test_a_check_debits_a_peek_does_not_and_a_refusal_is_a_value(door: Any, world: Any) -> None:
    """The gateway's own types."""
    await world.grant(10 * NANOS)
    peeked = await door.peek(key=world.key, feature="tokens", quantity=4)
    taken = await door.check(key=world.key, charges={"tokens": 4, "export": 1})
    refused = await door.check(key=world.key, feature="tokens", quantity=7)
    assert (peeked.allowed, peeked.cost_nanos, peeked.balance_nanos) == (True, 4 * NANOS, 10 * NANOS)
    assert (taken.allowed, taken.cost_nanos, taken.balance_nanos) == (True, 4 * NANOS, 6 * NANOS)
    assert (refused.allowed, refused.reason) == (False, Reason.INSUFFICIENT_BALANCE)
    assert len(await world.entries()) == 1


async def test_a_refusal_that_is_raised_says_why_and_when_to_come_back(door: Any, world: Any) -> None:
    """`require` for whoever wants no value."""
    assert (await door.require(key=world.key, feature="calls", quantity=10)).allowed
    with pytest.raises(Refused) as caught:
        await door.require(key=world.key, feature="calls")
    assert (caught.value.reason, caught.value.status) == (Reason.LIMIT_REACHED, 429)
    assert caught.value.retry_after_ms is not None
    with pytest.raises(Refused, match="key is not known"):
        await door.require(key="tgk_nobody", feature="calls")


async def test_what_is_at_fault_itself_is_raised_and_not_tried_again(door: Any, world: Any, make_door: Any) -> None:
    """The kind of failure that the gateway names."""
    with pytest.raises(InvalidInput):
        await door.check(key=world.key, feature="tokens", quantity=2**53)
    with pytest.raises(NotFound):
        await door.check(customer="nobody", feature="tokens")
    with pytest.raises(Unauthenticated):
        await make_door(door.client._terms.url).check(customer=world.customer, feature="tokens")


@pytest.mark.parametrize("swallows", [1, 3])
async def test_an_answer_that_is_lost_is_found_again_and_nothing_is_charged_twice(
    hole: Any, make_door: Any, world: Any, swallows: int
) -> None:
    """Each attempt carries the same idempotency key."""
    await world.grant(10 * NANOS)
    door = make_door(hole.url)
    hole.swallows = swallows
    answer = await door.check(key=world.key, feature="tokens", quantity=4)
    assert (answer.allowed, answer.replayed, answer.balance_nanos) == (True, True, 6 * NANOS)
    assert hole.swallowed == swallows
    assert len(await world.entries()) == 1


async def test_parts_extensions_and_ends_of_a_hold_are_charged_once_though_their_answers_are_lost(
    hole: Any, make_door: Any, world: Any, call: Any
) -> None:
    """Every act of a hold has a name of its own."""
    await world.grant(100 * NANOS)
    door = make_door(hole.url)
    asked = {"key": world.key, "charges": {"tokens": 50}, "ttl_ms": 600_000}
    if isinstance(door.client, AsyncTallygate):
        async with door.client.hold(**asked) as hold:
            hole.swallows += 1
            await hold.part({"tokens": 10})
            hole.swallows += 1
            await hold.extend({"tokens": 5}, ttl_ms=600_000)
            hold.used({"tokens": 20})
            hole.swallows += 1
    else:

        def work(hold: Any) -> None:
            hole.swallows += 1
            hold.part({"tokens": 10})
            hole.swallows += 1
            hold.extend({"tokens": 5}, ttl_ms=600_000)
            hold.used({"tokens": 20})
            hole.swallows += 1

        hold = await door.within(asked, work)
    assert hole.swallowed == 3
    assert (hold.outcome.outcome, hold.outcome.replayed) == (HoldEnd.SETTLED, True)
    assert await balance_of(call, world) == (70 * NANOS, 0)


async def test_a_hundred_at_once_on_a_wallet_for_ten_are_ten(door: Any, world: Any) -> None:
    """By the client, by its decorator, and by holds that are settled."""
    key = world.key
    charging = Charging(key=lambda _: key, charges={"tokens": 1})
    held = Charging(key=key, charges=lambda _: {"tokens": 1}, ttl_ms=600_000)
    client = door.client
    if isinstance(client, AsyncTallygate):

        @client.charged(charging)
        async def send(number: int) -> int:
            return number

        @client.charged(held)
        async def work(number: int) -> int:
            assert current_hold().id
            return number

    else:

        @client.charged(charging)
        def send(number: int) -> int:
            return number

        @client.charged(held)
        def work(number: int) -> int:
            assert current_hold().id
            return number

    async def run(function: Any, number: int) -> Any:
        if isinstance(client, AsyncTallygate):
            return await function(number)
        return await asyncio.to_thread(function, number)

    for turn, function in enumerate((send, work)):
        await world.grant(10 * NANOS, grant_id=f"g{turn}")
        results = await asyncio.gather(*(run(function, number) for number in range(100)), return_exceptions=True)
        assert sum(isinstance(one, int) for one in results) == 10
        assert sum(isinstance(one, Refused) for one in results) == 90
    answers = [door.check(key=key, feature="tokens") for _ in range(100)]
    await world.grant(10 * NANOS, grant_id="g3")
    assert sum(answer.allowed for answer in await asyncio.gather(*answers)) == 10
    assert len({entry.body.event_id for entry in await world.entries()}) == 30


async def test_a_block_that_ends_well_settles_by_what_was_used(door: Any, world: Any, call: Any) -> None:
    """The last word on a feature counts; what was not told settles as held; then nothing more is done."""
    await world.grant(100 * NANOS)
    asked = {"key": world.key, "charges": {"tokens": 50}, "ttl_ms": 600_000}

    def work(hold: Any) -> None:
        hold.used({"tokens": 40})
        hold.used({"tokens": 12})

    hold = await door.within(asked, work)
    assert (hold.outcome.charged_nanos, hold.outcome.released_nanos) == (12 * NANOS, 38 * NANOS)
    assert await balance_of(call, world) == (88 * NANOS, 0)
    hold = await door.within(asked, lambda _: None)
    assert hold.outcome.charged_nanos == 50 * NANOS
    assert current_hold() is None


class BurntError(Exception):
    """What goes wrong in a block."""


async def test_a_block_that_raises_releases_and_the_exception_goes_on(door: Any, world: Any, call: Any) -> None:
    """Nothing is charged."""
    await world.grant(100 * NANOS)

    def work(hold: Any) -> None:
        hold.used({"tokens": 40})
        raise BurntError

    with pytest.raises(BurntError):
        await door.within({"key": world.key, "charges": {"tokens": 50}, "ttl_ms": 600_000}, work)
    assert await balance_of(call, world) == (100 * NANOS, 0)
    with pytest.raises(Refused):
        await door.within({"key": world.key, "charges": {"tokens": 500}, "ttl_ms": 600_000}, work)


async def test_a_hold_may_be_ended_by_hand_and_then_the_block_ends_it_no_more(
    call: Any, world: Any, eventually: Any
) -> None:
    """Settled or released, once."""
    await world.grant(100 * NANOS)
    with Tallygate(call.url, on_outage="refuse", deadline_ms=60_000, attempt_ms=30_000) as tallygate:

        def by_hand(end: str) -> Any:
            with tallygate.hold(key=world.key, charges={"tokens": 50}, ttl_ms=600_000) as hold:
                getattr(hold, end)()
            return hold

        released = await asyncio.to_thread(by_hand, "release")
        settled = await asyncio.to_thread(by_hand, "settle")
    assert (released.outcome.outcome, settled.outcome.outcome) == (HoldEnd.RELEASED, HoldEnd.SETTLED)
    assert await balance_of(call, world) == (50 * NANOS, 0)


async def test_a_block_that_is_cancelled_releases(call: Any, world: Any) -> None:
    """Also where it is cancelled again while it releases."""
    await world.grant(100 * NANOS)
    async with AsyncTallygate(call.url, on_outage="refuse", deadline_ms=60_000, attempt_ms=30_000) as tallygate:
        inside = asyncio.Event()

        async def work() -> None:
            async with tallygate.hold(key=world.key, charges={"tokens": 50}, ttl_ms=600_000):
                inside.set()
                await asyncio.Event().wait()

        for again in (False, True):
            inside.clear()
            task = asyncio.create_task(work())
            await inside.wait()
            assert await balance_of(call, world) == (50 * NANOS, 50 * NANOS)
            task.cancel()
            if again:
                await asyncio.sleep(0)
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.gather(*tallygate._loose)
            assert await balance_of(call, world) == (100 * NANOS, 0)


async def test_who_is_cancelled_while_the_hold_is_being_placed_leaves_none(call: Any, world: Any) -> None:
    """At whichever step of the loop: placed or not, nothing stays held."""
    await world.grant(100 * NANOS)
    async with AsyncTallygate(call.url, on_outage="refuse", deadline_ms=60_000, attempt_ms=30_000) as tallygate:

        async def work() -> None:
            async with tallygate.hold(key=world.key, charges={"tokens": 1}, ttl_ms=600_000):
                await asyncio.Event().wait()

        for steps in range(40):
            task = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert await balance_of(call, world) == (100 * NANOS, 0)


def test_what_becomes_of_an_outage_must_be_said() -> None:
    """There is no default; and what is to be charged later needs a place on the disk."""
    for client in (AsyncTallygate, Tallygate):
        with pytest.raises(TypeError):
            client("http://127.0.0.1:1")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError):
            client("http://127.0.0.1:1", on_outage="maybe")
        with pytest.raises(ConfigurationError, match="a folder on the disk"):
            client("http://127.0.0.1:1", on_outage="record")
        with pytest.raises(ConfigurationError):
            client("127.0.0.1:1", on_outage="refuse")
        with pytest.raises(ConfigurationError):
            client("http://127.0.0.1:1", on_outage="refuse", deadline_ms=10, attempt_ms=20)


async def test_a_dead_gateway_refuses_or_allows_as_was_said(make_door: Any, free_port: Any, world: Any) -> None:
    """Refused is raised as Unavailable; what is allowed says that nobody decided it."""
    url = f"http://127.0.0.1:{free_port()}"
    closed = make_door(url, on_outage="refuse", deadline_ms=200, attempt_ms=100)
    opened = make_door(url, on_outage="allow", deadline_ms=200, attempt_ms=100)
    asked = {"key": world.key, "charges": {"tokens": 50}, "ttl_ms": 600_000}
    for act in (closed.check, closed.peek, closed.require):
        with pytest.raises(Unavailable):
            await act(key=world.key, feature="tokens")
    with pytest.raises(Unavailable):
        await closed.within(asked, lambda _: None)
    for act in (opened.check, opened.peek, opened.require):
        answer = await act(key=world.key, feature="tokens")
        assert (answer.allowed, answer.reason, answer.degraded) == (True, Reason.UNAVAILABLE, True)
    hold = await opened.within(asked, lambda hold: hold.used({"tokens": 3}))
    assert (hold.id, hold.outcome) == ("", None)


async def test_a_gateway_that_hangs_is_given_up_at_the_deadline(make_door: Any, world: Any) -> None:
    """It takes the connection and says nothing."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    closed = make_door(url, on_outage="refuse", deadline_ms=300, attempt_ms=100)
    opened = make_door(url, on_outage="allow", deadline_ms=300, attempt_ms=100)
    with pytest.raises(Unavailable, match="no answer within 300 ms"):
        await closed.check(key=world.key, feature="tokens")
    assert (await opened.check(key=world.key, feature="tokens")).degraded is True
    server.close()


async def test_an_answer_that_makes_no_sense_is_none(make_door: Any, world: Any) -> None:
    """A page of some other server is no decision."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(Unavailable):
        await make_door(url, deadline_ms=300, attempt_ms=200).check(key=world.key, feature="tokens")
    server.close()


async def test_a_gateway_that_comes_back_is_used_at_once(
    make_door: Any, world: Any, settings: Any, open_gateway: Any
) -> None:
    """While it is away each act tries once; the first answer ends that."""
    await world.grant(10 * NANOS)
    door = make_door(f"http://127.0.0.1:{settings.port}", on_outage="allow", deadline_ms=1_000, attempt_ms=1_000)
    assert (await door.check(key=world.key, feature="tokens")).degraded is True
    worker, _ = await open_gateway(settings)
    await asyncio.gather(*(link.up() for link in worker.links.values()))
    patient = make_door(f"http://127.0.0.1:{settings.port}", on_outage="refuse")
    assert (await patient.check(key=world.key, feature="tokens")).allowed
    door.client._terms = patient.client._terms
    answer = await door.check(key=world.key, feature="tokens")
    assert (answer.allowed, answer.reason, door.client._health.is_away) == (True, Reason.ALLOWED, False)
