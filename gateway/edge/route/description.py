"""`GET /openapi.json`: the data plane, described.

The table says of each route what its handler's signature cannot: types, statuses, who asks. A house test holds it
to the routes that are served. Rules between fields are told by problems only. What Envoy asks over gRPC stands in
Envoy's own protocol files.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cache
from typing import Annotated, Any

import msgspec

from billing_core.contract.openapi.document import OPENAPI_PATH, PLACE, document_of
from billing_core.contract.openapi.operation import Body, Operation, Parameter, Plane, Reply, Scheme
from billing_core.contract.problem import MEDIA_TYPE, Problem
from billing_core.contract.telemetry import EXPOSITION_TYPE
from billing_core.values.ids import Code
from gateway.admission.order import OnExpiry
from gateway.admission.reason import RULES, Reason
from gateway.edge.authorize.answer import HOLD_HEADER, STATUS_HEADER
from gateway.edge.authorize.route import DEADLINE_HEADER
from gateway.edge.message import JSON, Answer, Request
from gateway.edge.refusal.answer import Refusal
from gateway.edge.refusal.payment import REQUIRED_HEADER
from gateway.edge.route.account import UsageAnswer, WalletsAnswer
from gateway.edge.route.event import CLOUD_EVENT, CLOUD_EVENTS, NDJSON
from gateway.edge.route.probe import State
from gateway.edge.wire import (
    MAX_BATCH,
    CheckAnswer,
    CheckRequest,
    Count,
    DeadlineMs,
    EventAnswer,
    EventsAnswer,
    ExtendRequest,
    FailedAnswer,
    PartAnswer,
    Path,
    ReleaseRequest,
    SettleAnswer,
    SettleRequest,
    Ttl,
)
from gateway.receipt import JWKS_PATH, JWKS_TYPE
from gateway.usage.cloudevent import PREFIX, CloudEvent
from gateway.usage.event import ClientEvent

_OPERATOR, _CALLER, _CALLER_HEADER = "operator", "key", "key_header"
_BODY = (400, 413, 422, 503)
_PAYMENT_REQUIRED = 402
_HOLD_ID = Annotated[str, msgspec.Meta(pattern=r"^hold_[0-9a-f]{32}\Z")]
_SAYS = (
    "The data plane of Tallygate: may this caller do this now, and if so, it is debited in the same step. "
    "A check is answered 200 whatever was decided; an answer that is no success is a problem (RFC 9457). "
    "A request that is sent again with its idempotency key gets the first answer back."
)


class BatchBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """1 to 1,000 checks, and one deadline for them all."""

    checks: Annotated[list[CheckRequest], msgspec.Meta(max_length=MAX_BATCH)]
    deadline_ms: DeadlineMs | None = None


_Told = {"anyOf": [{"$ref": f"{PLACE}{kind.__name__}"} for kind in (CheckAnswer, FailedAnswer)]}


class BatchTold(msgspec.Struct, frozen=True, kw_only=True):
    """One answer for each check, in their order: the decision, or why there is none."""

    answers: list[Annotated[Any, msgspec.Meta(extra_json_schema=_Told)]]


class Asked(StrEnum):
    """How a proxy may ask."""

    CONSUME = "consume"
    PEEK = "peek"
    HOLD = "hold"


class AuthorizeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy's configuration says is charged; the first of each counts, and options in front of both."""

    mode: Asked = Asked.CONSUME
    ttl_ms: Ttl | None = None
    on_expiry: OnExpiry | None = None
    shadow: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    feature: Code
    quantity: Count


class SettleQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What the proxy's configuration says of a response; the first of each counts, and `free` in front of them."""

    free: str = ""
    hold: _HOLD_ID
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] | None = None
    quantity: Count | None = None


class UsageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Budget levels below the customer, such as `team:ml/key:k1`."""

    path: Path = ""


_Events = ClientEvent | Annotated[list[ClientEvent], msgspec.Meta(max_length=MAX_BATCH)]
_CloudEvents = Annotated[list[CloudEvent], msgspec.Meta(max_length=MAX_BATCH)]


async def tell_description(_: Request) -> Answer:
    """The document."""
    return Answer(status=200, body=describe(), media_type=JSON)


@cache
def describe() -> bytes:
    """The document, as JSON; made when it is first asked for."""
    return document_of(
        Plane(
            title="Tallygate data plane",
            version="1",
            says=_SAYS,
            schemes=(
                Scheme(name=_OPERATOR, says="A token of the tenant's operator."),
                Scheme(name=_CALLER, says="The caller's API key."),
                Scheme(name=_CALLER_HEADER, says="The caller's API key.", header="X-Api-Key"),
            ),
            operations=(*_checks(), *_holds(), *_events(), *_authorize(), *_accounts(), *_probes()),
            also=(Problem, FailedAnswer),
        )
    )


def _checks() -> tuple[Operation, ...]:
    return (
        Operation(
            method="POST",
            path="/v1/check",
            name="check",
            summary="May this be done, and if so, do it",
            says="By `key`, or by `customer` with an operator's token; one `feature`, or `charges`.",
            body=CheckRequest,
            replies=(Reply(status=200, says="The decision.", kind=CheckAnswer),),
            failures=(*_BODY, 401, 403, 404, 409),
            schemes=(_OPERATOR, ""),
        ),
        Operation(
            method="POST",
            path="/v1/check/batch",
            name="check_batch",
            summary="Up to 1,000 checks, one answer each, in their order",
            says="A body that breaks a rule refuses them all.",
            body=BatchBody,
            replies=(Reply(status=200, says="The decisions.", kind=BatchTold),),
            failures=(*_BODY, 401, 403, 404, 409),
            schemes=(_OPERATOR, ""),
        ),
    )


def _holds() -> tuple[Operation, ...]:
    hold = Parameter(
        name="hold_id", place="path", kind=_HOLD_ID, is_required=True, says="It is the credential, too."
    )
    ended = Reply(status=200, says="How the hold ended.", kind=SettleAnswer)
    failures = (*_BODY, 404, 409)
    return (
        Operation(
            method="POST",
            path="/v1/holds/{hold_id}/settle",
            name="settle",
            summary="End a hold by what was used",
            says="A feature that is not named settles as held. With `final` false only a part is charged.",
            parameters=(hold,),
            body=SettleRequest,
            needs_body=False,
            replies=(
                Reply(status=200, says="How it ended, or what a part cost.", kind=(SettleAnswer, PartAnswer)),
            ),
            failures=failures,
        ),
        Operation(
            method="POST",
            path="/v1/holds/{hold_id}/extend",
            name="extend",
            summary="Keep a hold for longer, and set more aside",
            parameters=(hold,),
            body=ExtendRequest,
            replies=(Reply(status=200, says="The decision.", kind=CheckAnswer),),
            failures=failures,
        ),
        Operation(
            method="POST",
            path="/v1/holds/{hold_id}/release",
            name="release",
            summary="End a hold without a charge",
            parameters=(hold,),
            body=ReleaseRequest,
            needs_body=False,
            replies=(ended,),
            failures=failures,
        ),
    )


def _events() -> tuple[Operation, ...]:
    some = "What became of each, where some were not taken."
    attributes = ("specversion", "id", "source", "type", "subject", "time")
    return (
        Operation(
            method="POST",
            path="/v1/events",
            name="events",
            summary="Usage that did not pass the gate, once per id however often it is sent",
            says=(
                "One event, an array, or a line for each. CloudEvents come in all three modes: in binary mode "
                "their attributes stand in header fields and the body is their data. They are unique by `source` "
                "and `id`, which together are the event's id."
            ),
            parameters=tuple(_header(PREFIX + name, str, says="Of a CloudEvent.") for name in attributes),
            body=_Events,
            other_bodies=(
                Body(media_type=NDJSON),
                Body(media_type=CLOUD_EVENT, kind=CloudEvent),
                Body(media_type=CLOUD_EVENTS, kind=_CloudEvents),
            ),
            replies=(
                Reply(status=200, says="What became of it, or of each.", kind=(EventAnswer, EventsAnswer)),
                Reply(status=207, says=some, kind=EventsAnswer),
            ),
            failures=(*_BODY, 401, 403, 404, 409),
            schemes=(_OPERATOR,),
        ),
    )


def _authorize() -> tuple[Operation, ...]:
    statuses = sorted({rule.status for reason, rule in RULES.items() if reason is not Reason.ALLOWED} | {400, 422})
    passed = Reply(status=200, says="The request may pass.", headers=(*_upstream_headers(), *_limit_headers()))
    refusals = [
        Reply(
            status=status,
            says="It may not.",
            kind=(Refusal, Problem),
            media_type=MEDIA_TYPE,
            headers=(*_limit_headers(), *(_payment_headers() if status == _PAYMENT_REQUIRED else ())),
        )
        for status in statuses
    ]
    reasons = (_header(STATUS_HEADER, int, says="The status that the refusal has elsewhere."),)
    for_nginx = [
        Reply(status=401, says="Nobody knows the key.", headers=reasons),
        Reply(status=403, says="It may not.", headers=(*reasons, *_limit_headers(), *_payment_headers())),
    ]
    ways = (("forward", "Caddy, Traefik, HAProxy", refusals), ("nginx", "nginx", for_nginx))
    deadline = _header(DEADLINE_HEADER, DeadlineMs, says="By when the answer is needed.")
    asked = tuple(
        Operation(
            method="GET",
            path=f"/v1/authorize/{name}",
            name=f"authorize_{name}",
            summary=f"The status is the decision, for {proxies}",
            says="Any method is answered alike, and other names of the query are the client's.",
            parameters=(deadline,),
            query=AuthorizeQuery,
            replies=(passed, *others),
            schemes=(_CALLER, _CALLER_HEADER),
        )
        for name, proxies, others in ways
    )
    by_envoy = Operation(
        method="GET",
        path="/v1/authorize/envoy/{feature}/{quantity}/{path}",
        name="authorize_envoy",
        summary="The status is the decision, for Envoy's ext_authz over HTTP",
        says="Any method is answered alike, and whatever the path goes on with is the client's.",
        parameters=(
            Parameter(name="feature", place="path", kind=Code, is_required=True),
            Parameter(
                name="quantity",
                place="path",
                kind=Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}\Z")],
                is_required=True,
                says="A whole number; behind it options, as in `500;mode=hold;ttl_ms=60000`.",
            ),
            Parameter(name="path", place="path", kind=str, is_required=True, says="What the client asked for."),
            deadline,
        ),
        replies=(passed, *refusals),
        schemes=(_CALLER, _CALLER_HEADER),
    )
    settled = Operation(
        method="GET",
        path="/v1/authorize/settle",
        name="authorize_settle",
        summary="End a hold by the response that it was placed for",
        says="Any method is answered alike, and a body is not read. The hold's id is the credential.",
        query=SettleQuery,
        replies=(Reply(status=204, says="The hold has ended so, or there was none."),),
        failures=(400, 404, 409, 422, 503),
    )
    return (*asked, by_envoy, settled)


def _accounts() -> tuple[Operation, ...]:
    customer = Parameter(name="customer_id", place="path", kind=Code, is_required=True)
    failures = (400, 401, 403, 404, 503)
    return (
        Operation(
            method="GET",
            path="/v1/customers/{customer_id}/usage",
            name="usage",
            summary="What a customer may use and has used, live",
            parameters=(customer,),
            query=UsageQuery,
            replies=(Reply(status=200, says="Features, and each limit of each level.", kind=UsageAnswer),),
            failures=failures,
            schemes=(_OPERATOR, _CALLER),
        ),
        Operation(
            method="GET",
            path="/v1/customers/{customer_id}/wallets",
            name="wallets",
            summary="What a customer's wallets hold, live",
            parameters=(customer,),
            replies=(Reply(status=200, says="All wallets.", kind=WalletsAnswer),),
            failures=failures,
            schemes=(_OPERATOR, _CALLER),
        ),
    )


def _probes() -> tuple[Operation, ...]:
    keys = Reply(status=200, says="A JWK set.", kind=dict[str, Any], media_type=JWKS_TYPE)
    text = Reply(status=200, says="Prometheus text.", media_type=EXPOSITION_TYPE.partition(";")[0])
    document = Reply(status=200, says="OpenAPI 3.1.", kind=dict[str, Any])
    state = Reply(status=200, says="It is so.", kind=State)
    return (
        _probe(JWKS_PATH, "receipt_keys", says="The public keys of receipts", reply=keys),
        _probe("/healthz", "healthz", says="Whether the process answers", reply=state),
        _probe(
            "/readyz", "readyz", says="Whether Redis answers and all shards are built", reply=state, failures=(503,)
        ),
        _probe("/metrics", "metrics", says="What the processes of this port count", reply=text),
        _probe(OPENAPI_PATH, "openapi", says="This document", reply=document),
    )


def _probe(path: str, name: str, *, says: str, reply: Reply, failures: tuple[int, ...] = ()) -> Operation:
    return Operation(method="GET", path=path, name=name, summary=says, replies=(reply,), failures=failures)


def _header(name: str, kind: Any, *, says: str) -> Parameter:
    return Parameter(name=name, place="header", kind=kind, says=says)


def _limit_headers() -> tuple[Parameter, ...]:
    return (
        _header("RateLimit-Policy", str, says="The limits of the decision, as the IETF draft writes them."),
        _header("RateLimit", str, says="What remains of them, and until when."),
        _header("X-Tallygate-Balance", str, says="What is left in the wallet: nanos and their currency."),
        _header("Retry-After", int, says="In how many seconds the same request may succeed."),
    )


def _payment_headers() -> tuple[Parameter, ...]:
    return (
        _header("Link", str, says="Where a person may pay (`rel=payment`), if the operator offers it."),
        _header(REQUIRED_HEADER, str, says="How a program may: x402 version 2, base64, if the operator offers it."),
    )


def _upstream_headers() -> tuple[Parameter, ...]:
    return (
        _header("X-Tallygate-Customer", str, says="Who is billed."),
        _header("X-Tallygate-Plan", str, says="The plan that the customer is on; empty: none."),
        _header("X-Tallygate-Decision", str, says="The decision's id."),
        _header(HOLD_HEADER, str, says="The hold's id; whoever has it may settle it."),
    )
