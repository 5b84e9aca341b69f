"""What stands on the gRPC port: each method by its path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.admission.gate import Gate
from gateway.admission.hold import Holds
from gateway.edge.accesslog.desk import AccessLogDesk
from gateway.edge.envoy.authorization import AuthorizationDesk
from gateway.edge.envoy.desk import Desk, Handler
from gateway.edge.envoy.health import HealthDesk
from gateway.edge.envoy.ratelimit import RateLimitDesk
from gateway.edge.grpc.call import Methods
from gateway.edge.grpc.stream import Sinks
from gateway.edge.refusal.answer import Notices
from gateway.settings import GatewaySettings
from gateway.state.directory import Directory

AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
RATE_LIMIT: Final = "envoy.service.ratelimit.v3.RateLimitService"
HEALTH: Final = "grpc.health.v1.Health"
ACCESS_LOG: Final = "envoy.service.accesslog.v3.AccessLogService"


def methods_of(  # noqa: PLR0913 - all that the services need
    gate: Gate,
    holds: Holds,
    *,
    directory: Directory,
    settings: GatewaySettings,
    notices: Notices,
    desk: Desk,
    is_serving: Callable[[], bool],
) -> Methods:
    """All that can be called."""
    authorization = AuthorizationDesk(gate, directory, settings=settings, notices=notices)
    rate_limit = RateLimitDesk(gate, holds, directory=directory, settings=settings, notices=notices)
    health = HealthDesk(frozenset({AUTHORIZATION, RATE_LIMIT, HEALTH, ACCESS_LOG}), is_serving)
    handlers: dict[str, Handler] = {
        f"/{AUTHORIZATION}/Check": authorization.check,
        f"/{RATE_LIMIT}/ShouldRateLimit": rate_limit.should_rate_limit,
        f"/{HEALTH}/Check": health.check,
    }
    return {path: desk.method(path, handler) for path, handler in handlers.items()}


def sinks_of(access_log: AccessLogDesk) -> Sinks:
    """All that messages can be sent to."""
    return {f"/{ACCESS_LOG}/StreamAccessLogs": access_log.take}
