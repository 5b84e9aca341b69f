"""Acts: each request of the API as a pure step from state and parameters to an answer and its changes.

Nothing here waits or writes; the server commits what an act returns. A decline is an answer that changes things:
the intent exists and says why it was not paid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
from stripe.params import (
    CustomerCreateParams,
    CustomerRetrieveParams,
    PaymentIntentCancelParams,
    PaymentIntentConfirmParams,
    PaymentIntentCreateParams,
    PaymentIntentListParams,
    PaymentIntentRetrieveParams,
    PaymentMethodAttachParams,
    PaymentMethodRetrieveParams,
)

from billing_core.adapters.stripe_double.answer import Answer, Change, Json, Work, invalid, missing, page
from billing_core.adapters.stripe_double.intent import (
    BEHAVIORS,
    EVENT_OF,
    Behavior,
    canceled,
    confirmed,
    made,
    moved,
    new_name,
)
from billing_core.adapters.stripe_double.state import CUSTOMERS, EVENTS, INTENTS, METHODS, State

API_VERSION = "2026-10-28.endive"
_MADE_FROM = "tallygate_double_made_from"
_DEFAULT_LIMIT, _LIMIT = 10, 100


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What an act sees. `name` is the id in the path; `adopts` whether unknown customers are taken on."""

    params: Json
    now: int
    name: str = ""
    adopts: bool = False


Act = Callable[[State, Request], Work]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A method and path of the API, the type of its parameters and what it does."""

    method: str
    path: str
    act: str
    params: type
    run: Act


def create_customer(state: State, request: Request) -> Work:
    """A customer, with what it was told."""
    del state
    customer = _customer(new_name("cus"), request)
    return _done(CUSTOMERS, customer)


def read_customer(state: State, request: Request) -> Work:
    """One customer."""
    return Work(answer=Answer(status=200, body=_known(state, CUSTOMERS, name=request.name, param="id", status=404)))


def attach_method(state: State, request: Request) -> Work:
    """A payment method of the customer's own, made from a test method or moved to it."""
    customer = request.params.get("customer")
    if not customer:
        raise invalid("Missing required param: customer.", code="parameter_missing", param="customer")
    taken_on = _customers(state, customer, request=request)
    source = _source_of(state, request.name)
    name = new_name("pm") if request.name in BEHAVIORS else request.name
    method = {
        "id": name,
        "object": "payment_method",
        "customer": customer,
        "created": request.now,
        "livemode": False,
        "type": "us_bank_account" if "BankAccount" in source else "card",
        "metadata": {_MADE_FROM: source},
    }
    work = _done(METHODS, method)
    return Work(answer=work.answer, changes=(*taken_on, *work.changes))


def read_method(state: State, request: Request) -> Work:
    """One payment method."""
    return Work(answer=Answer(status=200, body=_known(state, METHODS, name=request.name, param="id", status=404)))


def create_intent(state: State, request: Request) -> Work:
    """An intent, confirmed at once where that is asked for."""
    params = request.params
    customer, method = params.get("customer"), params.get("payment_method")
    if params.get("off_session") and not params.get("confirm"):
        raise invalid("off_session needs confirm=true", code="parameter_invalid", param="off_session")
    taken_on = _customers(state, customer, request=request) if customer else ()
    behavior = _behavior(state, method, customer=customer) if method else None
    intent = made(params, created=request.now)
    if not params.get("confirm"):
        return Work(
            answer=Answer(status=200, body=intent),
            changes=(*taken_on, _put(intent), _event("payment_intent.created", intent, at=request.now)),
        )
    if behavior is None:
        raise invalid("A payment method is needed to confirm", code="parameter_missing", param="payment_method")
    born = _event("payment_intent.created", intent, at=request.now)
    work = _confirmed(intent, behavior, at=request.now)
    return Work(answer=work.answer, changes=(*taken_on, born, *work.changes))


def confirm_intent(state: State, request: Request) -> Work:
    """An intent that waited is confirmed, perhaps with another payment method."""
    intent = _known(state, INTENTS, name=request.name, param="intent", status=404)
    method = request.params.get("payment_method") or intent["payment_method"]
    if not method:
        raise invalid("A payment method is needed to confirm", code="parameter_missing", param="payment_method")
    behavior = _behavior(state, method, customer=intent["customer"])
    return _confirmed(intent | {"payment_method": method}, behavior, at=request.now)


def cancel_intent(state: State, request: Request) -> Work:
    """An intent that is not paid is given up."""
    intent = _known(state, INTENTS, name=request.name, param="intent", status=404)
    after = canceled(intent, reason=request.params.get("cancellation_reason"), at=request.now)
    return Work(
        answer=Answer(status=200, body=after),
        changes=(_put(after), _event("payment_intent.canceled", after, at=request.now)),
    )


def read_intent(state: State, request: Request) -> Work:
    """One intent."""
    intent = _known(state, INTENTS, name=request.name, param="intent", status=404)
    return Work(answer=Answer(status=200, body=intent))


def list_intents(state: State, request: Request) -> Work:
    """Intents, the newest first, in pages."""
    params = request.params
    customer = params.get("customer")
    if customer and not request.adopts and state.get(CUSTOMERS, customer) is None:
        raise missing("customer", customer, param="customer")
    found = [one for one in reversed(state.all_of(INTENTS)) if not customer or one["customer"] == customer]
    found = [one for one in found if _is_within(one["created"], params.get("created"))]
    if params.get("starting_after"):
        names = [one["id"] for one in found]
        if params["starting_after"] not in names:
            raise missing("payment_intent", params["starting_after"], param="starting_after")
        found = found[names.index(params["starting_after"]) + 1 :]
    limit = params.get("limit", _DEFAULT_LIMIT)
    if not 1 <= limit <= _LIMIT:
        raise invalid(f"limit must be from 1 to {_LIMIT}", code="parameter_invalid_integer", param="limit")
    return Work(answer=page(found[:limit], url="/v1/payment_intents", has_more=len(found) > limit))


def settle_intent(state: State, request: Request) -> Work:
    """What a bank does after days: an intent that is processing comes to its end. Not part of Stripe's API."""
    intent = _known(state, INTENTS, name=request.name, param="intent", status=404)
    ends = BEHAVIORS[_source_of(state, intent["payment_method"])].ends
    if intent["status"] != "processing" or not ends:
        raise invalid("Nothing is processing", code="payment_intent_unexpected_state", param="intent")
    after = moved(intent, ends)
    return Work(
        answer=Answer(status=200, body=after),
        changes=(_put(after), _event(EVENT_OF[ends], after, at=request.now)),
    )


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        method="POST",
        path="/v1/customers",
        act="customers.create",
        params=CustomerCreateParams,
        run=create_customer,
    ),
    Endpoint(
        method="GET",
        path="/v1/customers/{name}",
        act="customers.retrieve",
        params=CustomerRetrieveParams,
        run=read_customer,
    ),
    Endpoint(
        method="POST",
        path="/v1/payment_methods/{name}/attach",
        act="payment_methods.attach",
        params=PaymentMethodAttachParams,
        run=attach_method,
    ),
    Endpoint(
        method="GET",
        path="/v1/payment_methods/{name}",
        act="payment_methods.retrieve",
        params=PaymentMethodRetrieveParams,
        run=read_method,
    ),
    Endpoint(
        method="POST",
        path="/v1/payment_intents",
        act="payment_intents.create",
        params=PaymentIntentCreateParams,
        run=create_intent,
    ),
    Endpoint(
        method="GET",
        path="/v1/payment_intents",
        act="payment_intents.list",
        params=PaymentIntentListParams,
        run=list_intents,
    ),
    Endpoint(
        method="GET",
        path="/v1/payment_intents/{name}",
        act="payment_intents.retrieve",
        params=PaymentIntentRetrieveParams,
        run=read_intent,
    ),
    Endpoint(
        method="POST",
        path="/v1/payment_intents/{name}/confirm",
        act="payment_intents.confirm",
        params=PaymentIntentConfirmParams,
        run=confirm_intent,
    ),
    Endpoint(
        method="POST",
        path="/v1/payment_intents/{name}/cancel",
        act="payment_intents.cancel",
        params=PaymentIntentCancelParams,
        run=cancel_intent,
    ),
)

_BOUNDS: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {
        "gt": lambda at, bound: at > bound,
        "gte": lambda at, bound: at >= bound,
        "lt": lambda at, bound: at < bound,
        "lte": lambda at, bound: at <= bound,
    }
)


def _is_within(created: int, bounds: Json | int | None) -> bool:
    if isinstance(bounds, dict):
        return all(_BOUNDS[word](created, bound) for word, bound in bounds.items())
    return bounds is None or created == bounds


def _confirmed(intent: Json, behavior: Behavior, *, at: int) -> Work:
    after = confirmed(intent, behavior)
    changes = (_put(after), _event(EVENT_OF[after["status"]], after, at=at))
    if after["status"] != "requires_payment_method":
        return Work(answer=Answer(status=200, body=after), changes=changes)
    error = after["last_payment_error"] | {"payment_intent": after}
    return Work(answer=Answer(status=402, body={"error": error}), changes=changes)


def _known(state: State, kind: str, *, name: str, param: str, status: int = 400) -> Json:
    found = state.get(kind, name)
    if found is None:
        raise missing(kind, name, param=param, status=status)
    return found


def _customers(state: State, name: str, *, request: Request) -> tuple[Change, ...]:
    """Nothing where the customer is known; the customer, where unknown ones are taken on."""
    if state.get(CUSTOMERS, name) is not None:
        return ()
    if not request.adopts:
        raise missing("customer", name, param="customer")
    bare = msgspec.structs.replace(request, params={})
    return (Change(kind=CUSTOMERS, id=name, value=_customer(name, bare)),)


def _customer(name: str, request: Request) -> Json:
    told = {key: value for key, value in request.params.items() if key != "payment_method"}
    fixed = {"id": name, "object": "customer", "created": request.now, "livemode": False}
    bare: Json = {"metadata": {}}
    return bare | told | fixed


def _source_of(state: State, method: str) -> str:
    """The test method that a payment method behaves like."""
    if method in BEHAVIORS:
        return method
    known = state.get(METHODS, method)
    if known is None:
        raise missing("PaymentMethod", method, param="payment_method")
    return known["metadata"][_MADE_FROM]


def _behavior(state: State, method: str, *, customer: str | None) -> Behavior:
    known = state.get(METHODS, method)
    if known is not None and known["customer"] != customer:
        raise invalid(
            "The payment method belongs to another customer",
            code="payment_method_unexpected_state",
            param="payment_method",
        )
    return BEHAVIORS[_source_of(state, method)]


def _put(intent: Json) -> Change:
    return Change(kind=INTENTS, id=intent["id"], value=intent)


def _done(kind: str, value: Json) -> Work:
    return Work(answer=Answer(status=200, body=value), changes=(Change(kind=kind, id=value["id"], value=value),))


def _event(kind: str, intent: Json, *, at: int) -> Change:
    name = new_name("evt")
    value: Json = {
        "id": name,
        "object": "event",
        "api_version": API_VERSION,
        "created": at,
        "data": {"object": intent},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    return Change(kind=EVENTS, id=name, value=value)
