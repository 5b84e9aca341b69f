"""What every proxy in front of a gateway holds to; its test module says which proxy, by a fixture `front`.

`Laws` are for each, `DistrustLaws` for one whose patience with the gateway can be set, `SettlingLaws` for one that
settles by a header of the response, `CountingLaws` for one that settles by the bytes it has sent, `LossLaws` where
a settlement is tried once. The features of the shipped file are swapped, so that a request to `/v1/` costs one of
`calls` (there are ten), one to `/metered/` holds a thousand of `tokens`, and one to `/bytes/` a million.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

import aiohttp
import msgspec
import pytest
from aiohttp import web

from billing_core.contract.keys import KeyRecord, Role
from billing_core.contract.snapshot import Status
from tests.integration.gateway.behind.conftest import KEY, LAST, Front, Upstream
from tests.integration.gateway.conftest import until
from tests.integration.gateway.proxy.conftest import Books

CALLS = "/v1/things"
TOKEN_NANOS = 100


class Laws:
    """Who may pass does, who may not does not, and nobody talks his way through."""

    undecided_status = 503
    """What is answered while nothing can be decided."""
    gone_status = 503
    """What is answered while there is no gateway."""
    tells_limits = True
    """Whether who may pass is told what is left."""

    async def test_who_cannot_pay_is_told_how_to(self, front: Front, upstream: Upstream) -> None:
        """As the operator offers it: by a person as a link, by a program as x402 has it."""
        status, told, _ = await front("/metered/x")
        assert (status, upstream.seen) == (402, [])
        assert told["Link"] == '<https://billing.example.com/top-up?customer=acme>; rel="payment"'
        assert "PAYMENT-REQUIRED" in told

    async def test_the_upstream_hears_who_it_serves_whatever_the_client_says(
        self, front: Front, upstream: Upstream, world: Any
    ) -> None:
        """Customer, plan and decision are ours; the client is told its limit, and nothing of that."""
        liar = ("Customer", "Plan", "Decision", "Would", "Degraded", "Hold")
        shapes = ("X-Tallygate-", "X_Tallygate_", "x-tallygate_", "X_TALLYGATE-")  # many upstreams take _ for -
        lies = {f"{shape}{name}": "1" for name in liar for shape in shapes}
        await world.project(features={"calls": msgspec.structs.replace(world.features["calls"], plan="pro")})
        status, told, body = await front(CALLS, KEY | lies)
        assert (status, body) == (200, b"served")
        assert told.get("RateLimit", "").startswith('"calls";r=9;t=') == self.tells_limits
        assert told.get("RateLimit-Policy") == ('"calls";q=10' if self.tells_limits else None)
        (seen,) = upstream.seen
        names = [name for name in seen.headers if "tallygate" in name.lower()]
        heard = {name.title(): seen.headers[name] for name in names}
        assert heard["X-Tallygate-Customer"] == "acme"
        assert heard["X-Tallygate-Decision"].startswith("dec_")
        assert heard["X-Tallygate-Plan"] == "pro"
        assert not set(heard.items()) & set(lies.items())
        assert set(heard) == {"X-Tallygate-Customer", "X-Tallygate-Plan", "X-Tallygate-Decision"}
        assert len(seen.headers.getall("X-Tallygate-Customer")) == 1

    async def test_what_a_client_says_of_its_connection_hides_nothing(
        self, front: Front, upstream: Upstream
    ) -> None:
        """A header that it calls a matter of the connection is not taken from the upstream."""
        hiding = {"Connection": "keep-alive, X-Tallygate-Customer, X-Tallygate-Plan"}
        assert (await front(CALLS, KEY | hiding))[0] == 200
        assert [seen.headers.get("X-Tallygate-Customer") for seen in upstream.seen] == ["acme"]

    @pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "tgk_nobody"}, {"Authorization": "Bearer tgk_nobody"}])
    async def test_who_has_no_key_is_told_how_to_show_one(
        self, front: Front, upstream: Upstream, headers: dict[str, str]
    ) -> None:
        """401 with the challenge."""
        status, told, body = await front(CALLS, headers)
        assert (status, told["WWW-Authenticate"]) == (401, 'Bearer realm="tallygate"')
        self.is_problem(told, body, status=401, code="unknown_key")
        assert upstream.seen == []

    @pytest.mark.parametrize(
        ("kind", "status", "code"),
        [
            ("closed", 403, "not_entitled"),
            ("tokens", 402, "insufficient_balance"),
            ("suspended", 402, "suspended"),
            ("calls", 429, "limit_reached"),
        ],
    )
    async def test_a_refusal_reaches_the_client_in_its_own_status(
        self, front: Front, upstream: Upstream, world: Any, kind: str, status: int, code: str
    ) -> None:
        """With reason and headers; the upstream hears nothing of it."""
        for _ in range(10 if kind == "calls" else 0):
            assert (await front(CALLS))[0] == 200
        if kind != "calls":
            await world.project(
                features={"calls": world.features.get(kind, world.features["calls"])},
                status=Status.SUSPENDED if kind == "suspended" else Status.ACTIVE,
            )
        served = len(upstream.seen)
        got, told, body = await front(CALLS)
        assert got == status
        self.is_problem(told, body, status=status, code=code)
        assert ("Retry-After" in told) == (status == 429)
        if status == 429:
            assert told["RateLimit"] == f'"calls";r=0;t={told["Retry-After"]}'
            assert told["RateLimit-Policy"] == '"calls";q=10'
        assert len(upstream.seen) == served

    async def test_a_hundred_at_once_and_exactly_ten_pass(
        self, front: Front, upstream: Upstream, world: Any
    ) -> None:
        """On a wallet for ten."""
        await world.project(features={"calls": world.features["tokens"]})
        await world.grant(10 * TOKEN_NANOS)
        got = await asyncio.gather(*(front(CALLS) for _ in range(100)))
        assert Counter(status for status, _, _ in got) == {200: 10, 402: 90}
        assert len(upstream.seen) == 10
        assert sum(1 for entry in await world.entries() if entry.charges) == 10

    async def test_a_body_reaches_the_upstream_whole(self, front: Front, upstream: Upstream) -> None:
        """However long it is; so does the address, word for word."""
        body = bytes(range(256)) * 1_000
        target = "/v1/a%20b?feature=export&quantity=0&x=%C3%A4"
        assert (await front(target, method="POST", body=body))[0] == 200
        (seen,) = upstream.seen
        assert (seen.method, seen.target, seen.body) == ("POST", target, body)

    @pytest.mark.parametrize(
        "query",
        ["feature=export&quantity=0", "mode=peek&feature=calls&quantity=0", "shadow=1&quantity=0", "quantity=1e3"],
    )
    async def test_what_is_charged_is_the_operators_word(self, front: Front, world: Any, query: str) -> None:
        """Neither the client's query nor its headers change it; an id of its own makes no second request free."""
        lies = {
            "X-Request-Id": "mine",
            "Idempotency-Key": "mine",
            "Tallygate-Deadline-Ms": "1",
            "X-Original-Uri": f"/v1/free?{query}",
            "X-Forwarded-Uri": f"/v1/free?{query}",
            "X-Forwarded-Method": "OPTIONS",
        }
        for _ in range(2):
            assert (await front(f"{CALLS}?{query}", KEY | lies))[0] == 200
        assert await charged(world) == [("calls", 1), ("calls", 1)]

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
    async def test_an_answer_of_the_upstream_passes_as_it_is(
        self, front: Front, upstream: Upstream, status: int
    ) -> None:
        """An error of its own too: it is no refusal of ours."""
        upstream.says("its own", status=status, headers={"X-Own": "1"})
        got, told, body = await front(CALLS)
        assert (got, body, told["X-Own"]) == (status, b"its own", "1")

    async def test_where_nothing_can_be_decided_nobody_passes(
        self, front: Front, upstream: Upstream, gateway: Any
    ) -> None:
        """Redis is away: that is no refusal, and the client may come again soon."""
        await gateway[0].links["decision"].stop()
        got, told, body = await front(CALLS)
        assert (got, told["Retry-After"]) == (self.undecided_status, "1")
        self.is_problem(told, body, status=503, code="unavailable")
        assert upstream.seen == []

    async def test_without_a_gateway_nobody_passes(
        self, front: Front, upstream: Upstream, close_gateway: Any
    ) -> None:
        """The connection is refused."""
        await close_gateway()
        assert (await front(CALLS))[0] == self.gone_status
        assert upstream.seen == []

    async def test_a_connection_to_the_gateway_serves_many_questions(
        self, front: Front, world: Any, settings: Any
    ) -> None:
        """However many workers the proxy has, each keeps its own."""
        await world.project(features={"calls": world.features["tokens"]})
        await world.grant(10**9)
        for _ in range(50):
            assert (await front(CALLS))[0] == 200
        assert front.lines(settings.port) <= 10

    async def test_a_gateway_is_replaced_without_a_failed_request(
        self, front: Front, world: Any, replace_gateway: Any
    ) -> None:
        """Connections that the proxy has kept come to their end."""
        await world.project(features={"calls": world.features["tokens"]})
        await world.grant(10**9)
        for _ in range(5):
            await replace_gateway()
            for _ in range(20):
                assert (await front(CALLS))[0] == 200
        assert sum(1 for entry in await world.entries() if entry.charges) == 100

    def is_problem(self, told: Any, body: bytes, *, status: int, code: str) -> None:
        """What a refused client reads."""
        assert told["Content-Type"] == "application/problem+json"
        problem = msgspec.json.decode(body)
        assert (problem["status"], problem["code"]) == (status, code)


async def charged(world: Any) -> list[tuple[str, int]]:
    """What usage entries say was charged, in order."""
    return [(charge.feature, charge.quantity) for entry in await world.entries() for charge in entry.charges]


class DistrustLaws:
    """Only an answer of the gateway lets anybody pass."""

    OTHERS: ClassVar = {
        "a fault": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "another server": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "no HTTP": b"\x15\x03\x01\x00\x02\x02\x16",
        "half of it": b"HTTP/1.1 200 O",
        "nothing": b"",
    }

    @pytest.mark.parametrize("kind", OTHERS)
    async def test_what_is_no_answer_lets_nobody_pass(
        self, front: Front, upstream: Upstream, stand_in: Any, kind: str
    ) -> None:
        """It is as if there was no gateway."""
        await stand_in(self.OTHERS[kind])
        assert (await front(CALLS))[0] == 503
        assert upstream.seen == []

    @pytest.mark.parametrize("patience_ms", [500])
    async def test_silence_lets_nobody_pass(self, front: Front, upstream: Upstream, stand_in: Any) -> None:
        """The proxy's patience ends."""
        await stand_in(None)
        assert (await front(CALLS))[0] == 503
        assert upstream.seen == []


class SettlingLaws:
    """What a response has cost is known when it is over."""

    metered = "/metered/x"
    held = 1_000

    @pytest.fixture(autouse=True)
    async def rich(self, world: Any) -> None:
        await world.grant(10**9)

    async def test_a_hold_is_settled_by_what_the_upstream_says(
        self, front: Front, upstream: Upstream, books: Any, world: Any
    ) -> None:
        """Less than was held; the rest is given back."""
        upstream.says(headers={"X-Units-Used": "7"})
        assert (await front(self.metered))[0] == 200
        await books.settled(10**9 - 7 * TOKEN_NANOS)
        assert await charged(world) == [("tokens", 7)]

    async def test_more_than_was_held_is_charged_too(self, front: Front, upstream: Upstream, books: Any) -> None:
        """The wallet has it."""
        upstream.says(headers={"X-Units-Used": "1500"})
        assert (await front(self.metered))[0] == 200
        await books.settled(10**9 - 1_500 * TOKEN_NANOS)

    async def test_a_response_that_says_nothing_costs_what_was_held(self, front: Front, books: Any) -> None:
        """Nobody knows better."""
        assert (await front(self.metered))[0] == 200
        await books.settled(10**9 - self.held * TOKEN_NANOS)

    @pytest.mark.parametrize(("status", "units"), [(500, "7"), (503, None)])
    async def test_a_failure_of_the_upstream_is_given_back(
        self, front: Front, upstream: Upstream, books: Any, world: Any, status: int, units: str | None
    ) -> None:
        """Whatever it says that it has used."""
        upstream.says(status=status, headers={"X-Units-Used": units} if units else {})
        assert (await front(self.metered))[0] == status
        await books.settled(10**9)
        assert await charged(world) == []

    async def test_an_upstream_that_is_not_there_costs_nothing(
        self, front: Front, books: Any, close_upstream: Any
    ) -> None:
        """The proxy answers 502 or 503 itself."""
        await close_upstream()
        assert (await front(self.metered))[0] in (502, 503)
        await books.settled(10**9)

    async def test_who_knows_a_hold_may_end_it_so_the_client_is_not_told(
        self, front: Front, upstream: Upstream, books: Any
    ) -> None:
        """Nor is the upstream, and what the client says of one does not count."""
        upstream.says(headers={"X-Units-Used": "7"})
        _, told, _ = await front(self.metered, KEY | {"X-Tallygate-Hold": "hold_mine"})
        assert not [name for name, value in told.items() if "hold" in (name + value).lower()]
        (seen,) = upstream.seen
        assert "hold_mine" not in seen.headers.getall("X-Tallygate-Hold", [])
        await books.settled(10**9 - 7 * TOKEN_NANOS)

    async def test_a_client_that_hangs_up_pays_all_the_same(
        self, front: Front, upstream: Upstream, books: Any
    ) -> None:
        """Also where it goes before the end."""
        stream = upstream.streams(b"first", headers={"X-Units-Used": "7"})
        await front.hang_up(self.metered, after=b"first")
        stream.end.set()
        await books.settled(10**9 - 7 * TOKEN_NANOS)

    async def test_an_upstream_that_dies_in_the_middle_is_paid_by_its_word(
        self, front: Front, upstream: Upstream, books: Any
    ) -> None:
        """The response had begun, and had said what it costs."""
        stream = upstream.streams(b"first", headers={"X-Units-Used": "7"}, dies=True)
        async with front.session.get(front.url + self.metered, headers=KEY) as response:
            assert await response.content.readexactly(5) == b"first"
            stream.end.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await books.settled(10**9 - 7 * TOKEN_NANOS)

    async def test_a_hundred_at_once_hold_what_there_is(self, front: Front, upstream: Upstream, world: Any) -> None:
        """A wallet for ten holds, none of which has ended, lets in ten."""
        key = {"X-Api-Key": "tgk_other"}
        await world.project(customer="other")
        await world.credential(
            key["X-Api-Key"], KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="other", hint="er")
        )
        await world.grant(10 * self.held * TOKEN_NANOS, customer="other")
        end = asyncio.Event()

        async def answer(_: web.Request) -> web.Response:
            await end.wait()
            return web.Response(headers={"X-Units-Used": "0"})

        upstream.answer = answer
        asked = [asyncio.ensure_future(front(self.metered, key)) for _ in range(100)]
        refused = 0
        async with asyncio.timeout(60):
            for done in asyncio.as_completed(asked):
                status, _, _ = await done
                assert status == (402 if refused < 90 else 200)
                refused += status == 402
                if refused == 90:
                    end.set()
        assert len(upstream.seen) == 10


class LossLaws:
    """The second hook may fail."""

    @pytest.mark.parametrize("ttl_ms", [1])
    async def test_a_settlement_that_is_lost_leaves_the_hold_to_its_end_which_charges_it(
        self, front: Front, upstream: Upstream, world: Any, close_gateway: Any, open_elsewhere: Any
    ) -> None:
        """The client has its response all the same."""
        await world.grant(10**9)

        async def answer(_: web.Request) -> web.Response:
            await close_gateway()
            return web.Response(text="served", headers={"X-Units-Used": "7"})

        upstream.answer = answer
        status, _, body = await front(SettlingLaws.metered)
        assert (status, body) == (200, b"served")
        call = await open_elsewhere()
        books = Books(call, world)
        cost = SettlingLaws.held * TOKEN_NANOS
        assert await books.wallet() == (10**9 - cost, cost)
        check = {"key": world.key, "feature": "tokens", "quantity": 1}  # a decision ends what is due
        assert (await call("/v1/check", check))[0] == 200
        await books.settled(10**9 - cost - TOKEN_NANOS)
        assert sorted(await charged(world)) == [("tokens", 1), ("tokens", SettlingLaws.held)]

    async def test_who_goes_before_there_is_a_decision_pays_by_the_upstreams_word(
        self, front: Front, upstream: Upstream, world: Any, books: Any, gateway: Any
    ) -> None:
        """The hold that it did not wait for is not forgotten."""
        await world.grant(10**9)
        upstream.says(headers={"X-Units-Used": "7"})
        link = gateway[0].links["decision"]
        await world.valkey.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
        writer = await front.ask(SettlingLaws.metered)
        await until(lambda: link.seated_count)
        writer.transport.abort()
        await world.valkey.execute_command("CLIENT", "UNPAUSE")
        await until(lambda: upstream.seen)
        await books.settled(10**9 - 7 * TOKEN_NANOS)


class CountingLaws:
    """What is paid for is what was sent."""

    counted = "/bytes/x"
    hears_the_end = False
    """Whether the proxy looks after its client only when it has something to send."""

    @pytest.fixture(autouse=True)
    async def rich(self, world: Any) -> None:
        await world.grant(10**9)

    @pytest.mark.parametrize("size", [0, 1, 300_000, 1_200_000])
    async def test_a_hold_is_settled_by_the_bytes_that_were_sent(
        self, front: Front, upstream: Upstream, books: Any, size: int
    ) -> None:
        """Of the body; be it more than was held."""
        upstream.says("x" * size)
        status, _, body = await front(self.counted)
        assert (status, len(body)) == (200, size)
        await books.settled(10**9 - size * TOKEN_NANOS)

    async def test_a_client_that_hangs_up_pays_for_what_it_got(
        self, front: Front, upstream: Upstream, books: Any
    ) -> None:
        """Or, where the proxy sees it late, for what was sent after it; the upstream goes on either way."""
        stream = upstream.streams(b"first")
        await front.hang_up(self.counted, after=b"first")
        if self.hears_the_end:
            stream.end.set()
        await books.settled(10**9 - (len(b"first" + LAST) if self.hears_the_end else 5) * TOKEN_NANOS)
        stream.end.set()

    async def test_an_upstream_that_dies_is_paid_for_what_it_sent(
        self, front: Front, upstream: Upstream, books: Any
    ) -> None:
        """And the client sees that there is something missing."""
        stream = upstream.streams(b"first", dies=True)
        async with front.session.get(front.url + self.counted, headers=KEY) as response:
            assert await response.content.readexactly(5) == b"first"
            stream.end.set()
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        await books.settled(10**9 - 5 * TOKEN_NANOS)

    async def test_a_failure_is_not_paid(self, front: Front, upstream: Upstream, books: Any) -> None:
        """However long its text."""
        upstream.says("x" * 1_000, status=500)
        assert (await front(self.counted))[0] == 500
        await books.settled(10**9)
