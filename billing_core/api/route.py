"""Routes: what can be asked, by whom, in which words, and who answers.

A route is a value: method and path, who may ask, the type of the query string, of the body and of the answer,
and the function that acts. The tables of the `routes` package hold nothing else, so that the description of the
whole API can be made from them. An act gets a call, in which everything is decoded and checked.

There are two kinds. A `Route` acts within one transaction, in which its idempotent answer is kept too: the act
and the memory of it happen together or not at all. A `FlowRoute` acts through several transactions or talks to
other servers; its act must be repeatable under its idempotency key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from billing_core.contract.telemetry import Telemetry
from billing_core.payments.processor import Processor
from billing_core.settings import BillingSettings
from billing_core.store.database import Database, Transaction
from billing_core.values.clock import Clock, system_now

Body = TypeVar("Body", bound=msgspec.Struct)
Query = TypeVar("Query", bound=msgspec.Struct)


class Access(StrEnum):
    """Who may ask: anybody, the holder of the root token, or an operator of the tenant."""

    PUBLIC = "public"
    ROOT = "root"
    OPERATOR = "operator"


class Retry(StrEnum):
    """Whether a request must, may or cannot carry an Idempotency-Key."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class House(msgspec.Struct, frozen=True, kw_only=True):
    """What acts are wired to; whoever makes it opens and closes its parts.

    `redis` may be absent, then nothing is reconciled; `processor` may be, then nothing is charged.
    """

    database: Database
    settings: BillingSettings
    telemetry: Telemetry
    clock: Clock = system_now
    redis: Any = None
    processor: Processor | None = None


HOUSE = web.AppKey("house", House)


class Call(msgspec.Struct, Generic[Body, Query], frozen=True, kw_only=True):
    """One request, decoded.

    `tenant_id` is "" for the root; `secret` is a fresh credential where the route makes one.
    """

    house: House
    tenant_id: str
    path: Mapping[str, str]
    query: Query
    body: Body
    now: datetime
    idempotency_key: str = ""
    secret: str = ""
    headers: Mapping[str, str] = {}
    raw: bytes = b""


class Terms(msgspec.Struct, Generic[Body, Query], frozen=True, kw_only=True):
    """What all routes have. `secret_prefix` marks a route whose answer shows a new credential once.

    `tells` says whom an answer is about where the gateway must know of it before it is given; such an answer has a
    field `applied`, which says whether it does.
    """

    method: str
    path: str
    summary: str
    query: type[Query]
    body: type[Body]
    answer: type[msgspec.Struct]
    access: Access = Access.OPERATOR
    status: int = 200
    retry: Retry = Retry.OPTIONAL
    secret_prefix: str = ""
    tells: Callable[[Any], str] | None = None


class Route(Terms[Body, Query], frozen=True, kw_only=True):
    """Acts within one transaction."""

    act: Callable[[Transaction, Call[Body, Query]], Awaitable[msgspec.Struct]]


class FlowRoute(Terms[Body, Query], frozen=True, kw_only=True):
    """Acts through transactions of its own."""

    act: Callable[[Call[Body, Query]], Awaitable[msgspec.Struct]]


AnyRoute = Route[Any, Any] | FlowRoute[Any, Any]
AnyCall = Call[Any, Any]
