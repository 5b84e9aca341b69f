"""A gateway with its gRPC port open, and the official client in front of it.

gateway   opened with the port; `world` is what it knows
port      asks it: `port.limit(...)`, `port.check(...)`, `port.health(...)`, each as Envoy would
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import msgspec
import pytest

from gateway.settings import GatewaySettings
from tests.envoy_schema import message

LIMIT = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
CHECK = "/envoy.service.auth.v3.Authorization/Check"
HEALTH = "/grpc.health.v1.Health/Check"
TYPES = {
    LIMIT: ("envoy.service.ratelimit.v3.RateLimitRequest", "envoy.service.ratelimit.v3.RateLimitResponse"),
    CHECK: ("envoy.service.auth.v3.CheckRequest", "envoy.service.auth.v3.CheckResponse"),
    HEALTH: ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse"),
}
TYPED = {path: (message(asked), message(told)) for path, (asked, told) in TYPES.items()}


class Port:
    """Speaks to a gateway's gRPC port."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._methods = {
            path: channel.unary_unary(
                path, request_serializer=asked.SerializeToString, response_deserializer=told.FromString
            )
            for path, (asked, told) in TYPED.items()
        }

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, number: int, *, retry_ms: int = 0) -> AsyncIterator[Port]:
        """A connection of its own, whatever others there are; how soon it is tried again is the client's to say."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        if retry_ms:
            options += [(f"grpc.{which}_reconnect_backoff_ms", retry_ms) for which in ("initial", "min", "max")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{number}", options=options) as channel:
            yield cls(channel)

    async def call(self, path: str, asked: Any, **more: Any) -> Any:
        return await self._methods[path](asked, timeout=more.pop("timeout", 30), **more)

    async def limit(self, *descriptors: dict[str, str], domain: str = "t1", hits: int = 0, **more: Any) -> Any:
        """A rate limit request; an entry `hits` is the descriptor's own addend."""
        asked = TYPED[LIMIT][0](domain=domain, hits_addend=hits)
        for entries in descriptors:
            descriptor = asked.descriptors.add()
            for name, value in entries.items():
                if name == "hits":
                    descriptor.hits_addend.value = int(value)
                else:
                    descriptor.entries.add(key=name, value=value)
        return await self.call(LIMIT, asked, **more)

    async def check(self, extensions: dict[str, str], headers: dict[str, str], **more: Any) -> Any:
        asked = TYPED[CHECK][0]()
        http = asked.attributes.request.http
        http.method, http.path, http.host = "GET", "/a/b?c=d", "api.example.com"
        http.headers.update({"accept": "*/*", **headers})
        asked.attributes.context_extensions.update(extensions)
        return await self.call(CHECK, asked, **more)

    async def health(self, name: str = "") -> int:
        return (await self.call(HEALTH, TYPED[HEALTH][0](service=name))).status


@pytest.fixture
def settings(settings: GatewaySettings, free_port: Callable[[], int]) -> GatewaySettings:
    return msgspec.structs.replace(settings, grpc_port=free_port())


@pytest.fixture
async def port(gateway: Any, settings: GatewaySettings) -> AsyncIterator[Port]:
    async with Port.open(settings.grpc_port) as opened:
        yield opened


@pytest.fixture
def failure() -> Callable[..., Any]:
    """What a call failed with: `await failure(port.limit(...))`."""

    async def of(call: Any) -> tuple[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return caught.value.code().name, caught.value.details()

    return of


@pytest.fixture
def opened() -> Callable[..., Any]:
    """Opens another one: `async with opened(port_number) as port`."""
    return Port.open
