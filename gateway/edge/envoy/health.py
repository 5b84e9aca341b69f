"""`grpc.health.v1.Health/Check`: whether this process can decide, asked by load balancers and by Envoy itself.

It serves while Redis is connected and the process is not about to end; for the whole server (no name), and for each
service by its name. A name that nobody knows is NOT_FOUND. `Watch` is a stream, which is not spoken here.

Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

from collections.abc import Callable

from billing_core.errors import NotFound
from gateway.edge.envoy.ask import health_of
from gateway.edge.envoy.reply import health
from gateway.edge.grpc.call import Call


class HealthDesk:
    """Tells whether calls are welcome."""

    def __init__(self, names: frozenset[str], is_serving: Callable[[], bool]) -> None:
        self._names = names | {""}
        self._is_serving = is_serving

    async def check(self, call: Call) -> bytes:
        """A HealthCheckRequest, and its HealthCheckResponse."""
        if health_of(call.message) not in self._names:
            raise NotFound("no such service", field="service")
        return health(is_serving=self._is_serving())
