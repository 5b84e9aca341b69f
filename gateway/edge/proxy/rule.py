"""What the routes file says, as types; `config/proxies/routes.toml` explains each key.

A file that contradicts itself is refused as a whole, with one line that names the place.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from billing_core.errors import ConfigurationError
from billing_core.values.ids import Code
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Mode, OnExpiry
from gateway.edge.wire import MAX_CHARGES, MAX_TTL_MS

Positive = Annotated[int, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXACT)]
Ttl = Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)]
FieldName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
FieldValue = Annotated[str, msgspec.Meta(pattern=r"^[\t\x20-\x7e]*$")]
Status = Annotated[str, msgspec.Meta(pattern=r"^[1-5]([0-9][0-9]|xx)$")]

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SCHEMES: Final = {"http": 80, "https": 443}


class KeyRule(StrEnum):
    """What becomes of the caller's key."""

    REMOVE = "remove"
    KEEP = "keep"


class Outage(StrEnum):
    """What happens while nothing can be decided."""

    REFUSE = "refuse"
    PASS = "pass"  # noqa: S105 - it is no password


class Loss(StrEnum):
    """By what a response is charged that nobody got to its end; `drain` reads on for a client that has gone."""

    DELIVERED = "delivered"
    USAGE = "usage"
    HELD = "held"
    RELEASE = "release"
    DRAIN = "drain"


class HalfClose(StrEnum):
    """Who may close its side of the connection and is still answered."""

    ANNOUNCED = "announced"
    ALWAYS = "always"
    NEVER = "never"


class UsagePart(StrEnum):
    """Which number of a usage frame."""

    INPUT = "input"
    OUTPUT = "output"
    TOTAL = "total"
    CACHED = "cached"


class Messages(StrEnum):
    """Which messages of a WebSocket are counted."""

    DOWN = "down"
    UP = "up"
    BOTH = "both"


class EndpointRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server."""

    url: str
    weight: Positive = 1


class HealthRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is asked whether it is well."""

    path: str
    interval_ms: Positive = 5_000
    timeout_ms: Positive = 1_000


class UpstreamRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Servers that do the same."""

    endpoints: Annotated[tuple[EndpointRule, ...], msgspec.Meta(min_length=1)]
    max_connections: Positive = 512
    connect_ms: Positive = 1_000
    idle_ms: Positive = 4_000
    fail_count: Positive = 3
    fail_ms: Positive = 10_000
    ca_file: str = ""
    health: HealthRule | None = None


class QuantityRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a request is: one of `units`, `header`, `json` and `estimate`."""

    units: Count | None = None
    header: FieldName | None = None
    json: str | None = None
    estimate: str | None = None
    default: Count | None = None
    most: Count = MAX_EXACT


class SettleRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a response turned out to cost: one of these."""

    units: Count | None = None
    header: FieldName | None = None
    json: str | None = None
    usage: UsagePart | None = None
    bytes: Positive | None = None
    seconds: Positive | None = None
    messages: Messages | None = None


class ChargeRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature of a route."""

    feature: Code
    quantity: QuantityRule = QuantityRule(units=1)
    settle: SettleRule | None = None


class RouteRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests, where to, and what they cost. No charges: they pass freely, and need no key."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    path: str
    upstream: str
    host: str = ""
    methods: tuple[str, ...] = ()
    charges: Annotated[tuple[ChargeRule, ...], msgspec.Meta(max_length=MAX_CHARGES)] = ()
    mode: Mode = Mode.HOLD
    ttl_ms: Ttl = 60_000
    on_expiry: OnExpiry = OnExpiry.RELEASE
    extend_units: Count = 0
    shadow: bool = False
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 0
    on_outage: Outage = Outage.REFUSE
    free_statuses: tuple[Status, ...] = ("5xx",)
    on_disconnect: Loss = Loss.DELIVERED
    on_upstream_loss: Loss = Loss.DELIVERED
    drain_ms: Positive = 30_000
    half_close: HalfClose = HalfClose.ANNOUNCED
    include_usage: bool = False
    key: KeyRule = KeyRule.REMOVE
    pass_host: bool = True
    max_body_bytes: Positive = 1_073_741_824
    max_read_bytes: Positive = 1_048_576
    response_ms: Positive = 60_000
    silence_ms: Positive = 60_000
    set_request_headers: dict[FieldName, FieldValue] = {}
    remove_request_headers: tuple[FieldName, ...] = ()
    set_response_headers: dict[FieldName, FieldValue] = {}
    remove_response_headers: tuple[FieldName, ...] = ()

    @property
    def reads_body(self) -> bool:
        """Whether a request's body must be read before it is passed on."""
        return self.include_usage or self.is_priced_by_body

    @property
    def is_priced_by_body(self) -> bool:
        """Whether it must be JSON."""
        quantities = [charge.quantity for charge in self.charges]
        return any(one.json is not None or one.estimate is not None for one in quantities)


class RoutesFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. The first route that matches counts."""

    upstreams: dict[str, UpstreamRule]
    routes: Annotated[tuple[RouteRule, ...], msgspec.Meta(min_length=1)]


def load_routes(path: Path, environ: Mapping[str, str]) -> RoutesFile:
    """The routes of a file; `${NAME}` in a header's value is taken from the environment.

    Raises: ConfigurationError, one line.
    """
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        told = msgspec.convert(document, RoutesFile)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not a TOML document: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    fault = next(filter(None, (_fault(route, told) for route in told.routes)), "") or _bad_upstream(told)
    if fault:
        raise ConfigurationError(f"{path}: {fault}")
    try:
        routes = tuple(_filled(route, environ) for route in told.routes)
    except KeyError as error:
        raise ConfigurationError(f"{path}: the environment has no {error.args[0]}") from None
    return msgspec.structs.replace(told, routes=routes)


def address_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a server. Raises: ValueError where it is no such address."""
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError(url)
    return parts.scheme, parts.hostname, parts.port or _SCHEMES[parts.scheme]


def _bad_upstream(told: RoutesFile) -> str:
    for name, upstream in told.upstreams.items():
        for endpoint in upstream.endpoints:
            try:
                address_of(endpoint.url)
            except ValueError:
                return f"upstreams.{name}: {endpoint.url!r} is no address such as http://127.0.0.1:9000"
    return ""


def _fault(route: RouteRule, told: RoutesFile) -> str:
    """What contradicts itself in a route; empty where nothing does."""
    place = f"routes.{route.name}"
    if route.upstream not in told.upstreams:
        return f"{place}: there is no upstream {route.upstream!r}"
    if sum(other.name == route.name for other in told.routes) > 1:
        return f"{place}: two routes have this name"
    if not route.path.startswith("/") or "//" in route.path:
        return f"{place}: a path begins with a slash, and has no empty parts"
    if route.mode not in (Mode.HOLD, Mode.CONSUME):
        return f"{place}: mode must be hold or consume"
    features = [charge.feature for charge in route.charges]
    if len(set(features)) != len(features):
        return f"{place}: each feature may be charged once"
    for charge in route.charges:
        quantity, settle = charge.quantity, charge.settle
        if sum(one is not None for one in (quantity.units, quantity.header, quantity.json, quantity.estimate)) != 1:
            return f"{place}: the quantity of {charge.feature} is one of units, header, json and estimate"
        if settle is None:
            continue
        if route.mode is not Mode.HOLD:
            return f"{place}: what is consumed at once is not settled; {charge.feature} needs mode hold"
        if sum(value is not None for value in msgspec.structs.astuple(settle)) != 1:
            return f"{place}: {charge.feature} is settled by one thing"
    if route.on_upstream_loss is Loss.DRAIN:
        return f"{place}: an upstream that is lost cannot be drained"
    return ""


def _filled(route: RouteRule, environ: Mapping[str, str]) -> RouteRule:
    """Raises: KeyError."""

    def fill(value: str) -> str:
        return _VARIABLE.sub(lambda found: environ[found[1]], value)

    return msgspec.structs.replace(
        route,
        set_request_headers={name: fill(value) for name, value in route.set_request_headers.items()},
        set_response_headers={name: fill(value) for name, value in route.set_response_headers.items()},
    )


def environment() -> Mapping[str, str]:
    """Of this process."""
    return os.environ
