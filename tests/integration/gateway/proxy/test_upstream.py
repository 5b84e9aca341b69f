"""Several servers behind one route: their weights, who is left out, and how many connections each may have."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from billing_core.values.clock import system_now
from tests.integration.gateway.proxy.conftest import Origin


@pytest.fixture
async def others() -> AsyncIterator[list[Any]]:
    """Two more servers, which say who they are."""
    async with contextlib.AsyncExitStack() as stack:
        made: list[Any] = []
        for name in (b"a", b"b"):
            one: Any = Origin()
            one.says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)
            server = await stack.enter_async_context(await asyncio.start_server(one.serve, "127.0.0.1", 0))
            one.server, one.port = server, server.sockets[0].getsockname()[1]
            made.append(one)
        yield made
        for one in made:
            one.server.close()
            for writer in one.writers:
                writer.close()


def endpoints(others: list[Any], *weights: int) -> dict[str, Any]:
    pairs = zip(others, weights, strict=True)
    return {"endpoints": [{"url": f"http://127.0.0.1:{one.port}", "weight": weight} for one, weight in pairs]}


async def who_answers(client: Any, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        await client.get("/x")
        found.append((await client.response()).body)
    return found


async def test_servers_take_turns_by_their_weight(proxied: Any, line: Any, others: Any, origin: Any) -> None:
    """Three to one, spread evenly, over connections that are kept."""
    await proxied({}, upstream=endpoints(others, 3, 1))
    assert b"".join(await who_answers(await line(), 8)) == b"aabaaaba"
    assert [one.connections for one in others] == [1, 1]


async def test_a_server_that_cannot_be_reached_is_left_out(
    proxied: Any, line: Any, others: Any, origin: Any, free_port: Any
) -> None:
    """After so many failures in a row; till then each of them is told."""
    others[0].port = free_port()
    await proxied({}, upstream=endpoints(others, 1, 1) | {"fail_count": 2, "fail_ms": 600_000})
    client = await line()
    statuses: Counter[int] = Counter()
    for _ in range(20):
        await client.get("/x")
        statuses[(await client.response()).status] += 1
    assert statuses == {502: 2, 200: 18}


async def test_a_server_that_is_not_well_is_not_asked(
    proxied: Any, line: Any, others: Any, origin: Any, eventually: Any
) -> None:
    """Until it is again."""
    others[0].says(b"HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nx")
    health = {"path": "/healthz", "interval_ms": 10, "timeout_ms": 5_000}
    worker = await proxied({}, upstream=endpoints(others, 1, 1) | {"health": health})
    first, second = worker.proxy.pools["origin"].endpoints
    await eventually(lambda: first.is_ill and not second.is_ill and others[1].asked)
    client = await line()
    assert await who_answers(client, 6) == [b"b"] * 6
    others[0].says(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    await eventually(lambda: not first.is_ill)
    assert sorted(await who_answers(client, 6)) == [b"a"] * 3 + [b"b"] * 3


@pytest.mark.parametrize("way", ["long", "straight"])
async def test_above_its_bound_an_upstream_is_not_asked_and_nobody_charged(
    proxied: Any, line: Any, origin: Any, world: Any, books: Any, eventually: Any
) -> None:
    """Who comes too much is refused at once."""
    await world.grant(10_000)
    await proxied(
        {"mode": "consume", "charges": [{"feature": "tokens"}]},
        upstream={"endpoints": [{"url": f"http://127.0.0.1:{origin.port}"}], "max_connections": 1},
    )
    going = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: Any) -> None:
        await going.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    origin.answer = answer
    first, second = await line(), await line()
    await first.get("/x", f"X-Api-Key: {world.key}")
    await eventually(lambda: origin.asked)
    await second.get("/x", f"X-Api-Key: {world.key}")
    reply = await second.response()
    assert (reply.status, reply.fields["retry-after"]) == (503, "1")
    going.set()
    assert (await first.response()).status == 200
    assert await books.wallet() == (9_900, 0)
    await second.get("/x", f"X-Api-Key: {world.key}")
    assert (await second.response()).status == 200


async def test_what_is_open_may_end_when_the_process_stops(
    proxied: Any, line: Any, origin: Any, world: Any, books: Any, eventually: Any
) -> None:
    """And the answer says that it is the connection's last; the hold is settled before the process goes."""
    await world.grant(10_000)
    worker = await proxied({"charges": [{"feature": "tokens", "quantity": {"units": 9}, "settle": {"units": 2}}]})
    going = asyncio.Event()

    async def answer(asked: Any, reader: Any, writer: Any) -> None:
        await going.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    origin.answer = answer
    client = await line()
    await client.get("/x", f"X-Api-Key: {world.key}")
    await eventually(lambda: origin.asked)
    stopping = asyncio.create_task(worker.proxy.stop())
    await eventually(lambda: worker.proxy.is_stopping)
    going.set()
    reply = await client.response()
    assert (reply.body, reply.is_last) == (b"ok", True)
    client.writer.close()
    await stopping
    assert await books.wallet() == (9_800, 0)


async def test_a_stream_that_outlives_the_grace_is_hung_up_on_and_settled(
    proxied: Any, line: Any, origin: Any, world: Any, books: Any
) -> None:
    """By what was delivered."""
    await world.grant(10_000)
    charge = {"feature": "tokens", "quantity": {"units": 9}, "settle": {"bytes": 2}}
    worker = await proxied({"charges": [charge]}, stop_grace_ms=1)
    origin.says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n1234")
    client = await line()
    await client.get("/x", f"X-Api-Key: {world.key}")
    await client.head()
    assert await client.reader.readexactly(4) == b"1234"
    await worker.proxy.stop()
    assert await books.wallet() == (9_800, 0)


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, signed by itself; the key stands in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "origin")])
    now = system_now()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "origin.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_an_upstream_may_speak_tls(
    proxied: Any, line: Any, origin: Any, tmp_path: Path, is_trusted: bool
) -> None:
    """Its certificate must be one that is trusted."""
    file = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = await asyncio.start_server(origin.serve, "127.0.0.1", 0, ssl=context)
    endpoint = {"url": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"}
    await proxied(
        {},
        upstream={"endpoints": [endpoint], "connect_ms": 20_000} | ({"ca_file": str(file)} if is_trusted else {}),
    )
    client = await line()
    for _ in range(2):
        await client.get("/x")
        assert (await client.response()).status == (200 if is_trusted else 502)
    assert len(origin.asked) == (2 if is_trusted else 0)
    server.close()
