"""Either side may go after any byte: what was delivered is what is charged, and nothing is charged for nothing.

Each stream is told up to each of its bytes, head included; then the client goes, or the upstream, or nobody.
"""

from __future__ import annotations

import zlib
from typing import Any

import msgspec
import pytest

from tests.integration.gateway.proxy.carrier import Carrier, Stage, chunks_in, decision_of

HELD = 20
ASKING = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: tgk_caller\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Part(msgspec.Struct, frozen=True):
    """What passes as a whole, and what the response comes to with it."""

    data: bytes
    units: int


def events(*parts: tuple[str, int], end: str = "\n") -> list[Part]:
    return [Part(text.replace("\n", end).encode(), units) for text, units in parts]


FRAME = 'data: {"usage":{"prompt_tokens":5,"completion_tokens":9}}\n\n'
PLAIN = events(
    ('data: {"delta":"four"}\n\n', 1),
    ('data: {"delta":"four four"}\n\n', 4),
    (FRAME, 9),
    ("data: [DONE]\n\n", 9),
)
WORDY = events(
    (": a remark that keeps it alive\n", 0),
    ('event: x\nid: 7\ndata: {"delta":\ndata:"füür 日本"}\n\n', 4),
    ("\n\n", 4),
    ('data:   {"delta":"four"}\ndata\n\n', 5),
    ("retry: 5\n\n", 5),
)
MESSAGES = events(
    ('data: {"message":{"usage":{"input_tokens":5,"output_tokens":2}}}\n\n', 0),
    ('data: {"delta":{"text":"four"}}\n\n', 1),
    ('data: {"usage":{"output_tokens":3}}\n\n', 3),
    ('data: {"delta":{"text":"fourfour"}}\n\n', 5),
    ('data: {"usage":{"output_tokens":9}}\n\n', 9),
)


def crlf(parts: list[Part]) -> list[Part]:
    return [Part(part.data.replace(b"\n", b"\r\n"), part.units) for part in parts]


class Told(msgspec.Struct, frozen=True):
    """A stream as it is sent. `usage` None: nobody says what was used."""

    raw: bytes
    parts: list[Part]
    usage: int | None
    is_chunked: bool = False
    is_zipped: bool = False
    is_endless: bool = False

    @property
    def head_size(self) -> int:
        return self.raw.index(b"\r\n\r\n") + 4

    def passed(self, size: int) -> list[Part]:
        """What has passed once so many bytes have come."""
        body = self.raw[self.head_size : size]
        if self.is_chunked:
            body = chunks_begun(body)
        if self.is_zipped:
            body = zlib.decompressobj(47).decompress(body)
        left, found = len(body), []
        for part in self.parts:
            left -= len(part.data)
            if left < 0:
                break
            found.append(part)
        return found

    def units(self, size: int) -> int:
        """What was delivered by then."""
        passed = self.passed(size)
        return passed[-1].units if passed else 0

    def frame(self, size: int) -> bool:
        """Whether the last usage frame has passed by then."""
        return self.usage is not None and self.units(size) == self.usage


def chunks_begun(body: bytes) -> bytes:
    """What has come in chunks, the last one whole or not."""
    found = b""
    while b"\r\n" in body:
        size, _, body = body.partition(b"\r\n")
        if not int(size, 16):
            break
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found


def chunked(parts: list[Part], usage: int | None, *, step: int, is_zipped: bool = False) -> Told:
    body = b"".join(part.data for part in parts)
    coding = b""
    if is_zipped:
        packer = zlib.compressobj(wbits=31)
        body = b"".join(packer.compress(part.data) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts)
        body, coding = body + packer.flush(), b"Content-Encoding: gzip\r\n"
    cuts = [body[at : at + step] for at in range(0, len(body), step)]
    raw = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts) + b"0\r\nX-Sum: 1\r\n\r\n"
    head = HEAD + coding + b"Transfer-Encoding: chunked\r\n\r\n"
    return Told(head + raw, parts, usage, is_chunked=True, is_zipped=is_zipped)


def sized(parts: list[Part], usage: int | None) -> Told:
    body = b"".join(part.data for part in parts)
    return Told(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body), parts, usage)


STREAMS = {
    "in chunks that are cut anywhere": chunked(PLAIN, 9, step=17),
    "of a length, without a last word": sized(PLAIN[:3], 9),
    "until the end of the connection": Told(
        HEAD + b"\r\n" + b"".join(part.data for part in PLAIN), PLAIN, 9, is_endless=True
    ),
    "with remarks, many lines and letters of many bytes": chunked(WORDY, None, step=31),
    "in lines of CR LF": sized(crlf(WORDY), None),
    "of cumulative usage": chunked(MESSAGES, 9, step=64),
    "compressed though nobody asked for it": chunked(PLAIN, 9, step=40, is_zipped=True),
}


def route(**more: Any) -> dict[str, Any]:
    charge = {"feature": "tokens", "quantity": {"units": HELD}, "settle": {"usage": "output"}}
    return {"charges": [charge]} | more


@pytest.fixture
async def stage(proxied: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    async def made(**more: Any) -> Stage:
        await world.grant(10**9)
        worker = await proxied(route(**more))
        await worker.directory.credential(world.key)
        return Stage(worker, monkeypatch)

    return made


async def charged(world: Any) -> dict[str, int]:
    """By decision."""
    entries = await world.entries()
    assert len({entry.body.event_id for entry in entries}) == len(entries)
    return {entry.body.event_id: entry.charges[0].quantity for entry in entries}


async def nothing_is_held(books: Any, charges: dict[str, int]) -> None:
    assert await books.wallet() == (10**9 - 100 * sum(charges.values()), 0)


def delivered(client: Carrier) -> bytes:
    """What came to the client, without what we had to say."""
    head, _, body = client.written.partition(b"\r\n\r\n")
    plain = chunks_in(body)[0] if b"Transfer-Encoding" in head else body
    return plain.partition(b"event: error\n")[0]


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_that_is_cut_at_any_byte_is_the_same_stream(
    stage: Any, world: Any, books: Any, name: str
) -> None:
    """Word for word, and settled by what it was."""
    told, on = STREAMS[name], await stage()
    whole = b"".join(part.data for part in told.parts)
    expected = {}
    for cut in range(1, len(told.raw)):
        client, upstream = await on.meet(ASKING)
        upstream.says(told.raw[:cut], told.raw[cut:])
        if told.is_endless:
            upstream.ends()
        expected[decision_of(upstream)] = told.usage if told.usage is not None else told.parts[-1].units
        assert delivered(client) == whole
    await on.over()
    found = await charged(world)
    assert found == expected
    await nothing_is_held(books, found)


async def hang_up_everywhere(on: Stage, told: Told, *, then: bytes = b"") -> dict[str, int]:
    """The client goes after each byte of the response; by decision, how many bytes had come."""
    gone = {}
    for size in range(len(told.raw)):
        client, upstream = await on.meet(ASKING)
        upstream.says(told.raw[:size])
        assert delivered(client) == b"".join(part.data for part in told.passed(size))
        client.vanish()
        gone[decision_of(upstream)] = size
        if then:
            upstream.says(told.raw[size:])
    await on.over()
    return gone


@pytest.mark.parametrize("name", STREAMS)
async def test_a_client_may_hang_up_after_any_byte(stage: Any, world: Any, books: Any, name: str) -> None:
    """It pays for what was delivered; before the response has begun, as held: the upstream has the request."""
    told, on = STREAMS[name], await stage()
    gone = await hang_up_everywhere(on, told)
    expected = {one: told.units(size) if size >= told.head_size else HELD for one, size in gone.items()}
    found = await charged(world)
    assert found == {one: units for one, units in expected.items() if units}
    await nothing_is_held(books, found)


@pytest.mark.parametrize("policy", ["usage", "held", "release", "drain"])
async def test_a_client_that_hangs_up_after_any_byte_pays_by_the_policy(
    stage: Any, world: Any, books: Any, policy: str
) -> None:
    """Drained, it is the whole stream's usage, wherever the client went."""
    told = STREAMS["in chunks that are cut anywhere"]
    on = await stage(on_disconnect=policy)
    gone = await hang_up_everywhere(on, told, then=told.raw if policy == "drain" else b"")
    expected = {}
    for one, size in gone.items():
        seen = told.units(size) if size >= told.head_size else HELD
        expected[one] = {"usage": seen, "held": HELD, "release": 0, "drain": told.usage}[policy]
    found = await charged(world)
    assert found == {one: units for one, units in expected.items() if units}
    await nothing_is_held(books, found)


@pytest.mark.parametrize("name", STREAMS)
async def test_an_upstream_may_die_after_any_byte(stage: Any, world: Any, books: Any, name: str) -> None:
    """What was delivered is charged, nothing where no response had begun; and the client sees that it is cut."""
    told, on = STREAMS[name], await stage()
    expected = {}
    for size in range(len(told.raw)):
        client, upstream = await on.meet(ASKING)
        upstream.says(told.raw[:size])
        is_begun = size >= told.head_size
        units = told.units(size) if is_begun else 0
        expected[decision_of(upstream)] = units
        upstream.vanish()
        if is_begun:
            assert delivered(client) == b"".join(part.data for part in told.passed(size))
            assert client.is_closing()
            assert not client.written.endswith(b"0\r\n\r\n")
    await on.over()
    found = await charged(world)
    assert found == {one: units for one, units in expected.items() if units}
    await nothing_is_held(books, found)


@pytest.mark.parametrize("policy", ["usage", "held", "release"])
async def test_an_upstream_that_dies_after_any_byte_is_charged_by_the_policy(
    stage: Any, world: Any, books: Any, policy: str
) -> None:
    """And never where no response had begun."""
    told = STREAMS["of cumulative usage"]
    on = await stage(on_upstream_loss=policy)
    last = {0: 0, 3: 3, 5: 3, 9: 9}
    expected = {}
    for size in range(len(told.raw)):
        _, upstream = await on.meet(ASKING)
        upstream.says(told.raw[:size])
        upstream.vanish()
        seen = told.units(size)
        frame = 2 if told.passed(size) and seen <= 1 else last.get(seen, 0)
        units = {"usage": frame, "held": HELD, "release": 0}[policy]
        expected[decision_of(upstream)] = units if size >= told.head_size else 0
    await on.over()
    found = await charged(world)
    assert found == {one: units for one, units in expected.items() if units}
    await nothing_is_held(books, found)


BODY = b"0123456789abcdef"
UPLOADS = {
    "of a length": b"POST /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: tgk_caller\r\nContent-Length: 16\r\n\r\n" + BODY,
    "in chunks": b"POST /x HTTP/1.1\r\nHost: a\r\nX-Api-Key: tgk_caller\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"a\r\n0123456789\r\n6\r\nabcdef\r\n0\r\nX-Sum: 1\r\n\r\n",
}


@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize("policy", ["delivered", "held", "drain"])
async def test_a_request_that_breaks_off_at_any_byte_costs_nothing(
    stage: Any, world: Any, books: Any, name: str, policy: str
) -> None:
    """Whatever the policy: the upstream never got all of it, so nobody can have worked. With the last it may."""
    raw, on = UPLOADS[name], await stage(on_disconnect=policy)
    head = raw.index(b"\r\n\r\n") + 4
    for size in range(head):
        client = on.client(raw[:size])
        client.vanish()
    for size in range(head, len(raw)):
        client, upstream = await on.meet(raw[:size])
        client.vanish()
        assert upstream.is_closing()
    await on.over()
    assert await charged(world) == {}
    client, upstream = await on.meet(raw, until=BODY[-1:])
    client.vanish()
    upstream.vanish()
    await on.over()
    found = await charged(world)
    assert list(found.values()) == ([] if policy == "drain" else [HELD])
    await nothing_is_held(books, found)
