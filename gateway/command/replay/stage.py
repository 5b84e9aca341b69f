"""The stage: a fresh sandbox tenant with a catalog, customers on a plan, filled wallets and keys.

It is set through the control plane, as any operator would do it. Every act carries an idempotency key made of the
run's name, so that a control plane that dies in between is simply asked again. The stage stands when the gate says
of every customer that it would let its first request through.
"""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Final

import msgspec

from billing_core.errors import Unavailable
from gateway.command.client.account import ApiKey, Customer, Published, Subscription, Tenant
from gateway.command.client.answer import Answer
from gateway.command.client.bill import TopUp
from gateway.command.client.decision import Decision
from gateway.command.client.persistence import PatientPlane, Persistence, persist
from gateway.command.client.plane import Plane
from gateway.command.client.route import route
from gateway.command.replay.cast import Actor, top_up_units
from gateway.command.replay.list_price import INPUT, OUTPUT, ListPrice

_OPEN_PATIENCE_S: Final = 60.0
_CARD: Final = "pm_card_visa"


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be staged. `held_nanos` is the most that holds set aside at one moment."""

    run: str
    catalog: dict[str, object]
    price: ListPrice
    cast: tuple[Actor, ...]
    held_nanos: Fraction


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """One customer, ready to call. `top_up_units` are whole units of the currency that were paid in."""

    actor: Actor
    key: str
    subscription: Subscription
    top_up_units: int


async def found_tenant(root: PatientPlane, run: str) -> Tenant:
    """A sandbox of the run's name, at the real time."""
    body = {"tenant_id": run, "name": "replay of a trace", "sandbox": True}
    return await root.post("/v1/tenants", Tenant, body=body, idempotency_key=f"{run}-tenant")


async def set_stage(operator: PatientPlane, script: Script) -> tuple[Seat, ...]:
    """Publish the catalog and seat every customer, in the order of the cast."""
    await operator.put("/v1/catalog", Published, body=script.catalog)
    return tuple(await asyncio.gather(*(_seat(operator, script, actor=actor) for actor in script.cast)))


async def await_gate(gateway: Plane, seats: tuple[Seat, ...]) -> None:
    """Wait until the gate knows every key, plan and balance.

    Raises: Unavailable where it does not within a minute.
    """
    persistence = Persistence(patience_s=_OPEN_PATIENCE_S)
    await asyncio.gather(*(persist(lambda seat=seat: _peek(gateway, seat), persistence) for seat in seats))


async def _seat(operator: PatientPlane, script: Script, *, actor: Actor) -> Seat:
    run, name = script.run, actor.customer_id
    await operator.post("/v1/customers", Customer, body=_draft(actor), idempotency_key=f"{run}-{name}-customer")
    subscription = await operator.post(
        "/v1/subscriptions",
        Subscription,
        body={"customer_id": name, "plan": script.price.plan},
        idempotency_key=f"{run}-{name}-subscription",
    )
    units = top_up_units(actor.share, script.price, held_nanos=script.held_nanos)
    await operator.post(
        route("/v1/customers/{}/wallets/{}/top-ups", name, script.price.currency),
        TopUp,
        body=_top_up(actor, units, run=run),
        idempotency_key=f"{run}-{name}-top-up",
    )
    key = await operator.post(
        route("/v1/customers/{}/keys", name),
        ApiKey,
        body={"label": "replay"},
        idempotency_key=f"{run}-{name}-key",
    )
    return Seat(actor=actor, key=key.key, subscription=subscription, top_up_units=units)


def _draft(actor: Actor) -> dict[str, object]:
    draft: dict[str, object] = {"customer_id": actor.customer_id, "name": actor.name, "payment_terms_days": 0}
    if actor.is_offline:
        return draft | {"collection": "offline"}
    card = {"stripe_customer": f"cus_{actor.customer_id.replace('-', '')}", "stripe_payment_method": _CARD}
    return draft | {"collection": "stripe"} | card


def _top_up(actor: Actor, units: int, *, run: str) -> dict[str, object]:
    body: dict[str, object] = {"amount": f"{units}.00", "method": actor.method.value}
    return body | {"reference": f"{run} {actor.customer_id} credit"} if actor.is_offline else body


async def _peek(gateway: Plane, seat: Seat) -> Answer[Decision]:
    """Whether the gate would let the customer's first request through.

    Raises: Unavailable, to be asked again, where it would not yet.
    """
    charges = [{"feature": INPUT, "quantity": 1}, {"feature": OUTPUT, "quantity": 1}]
    body = {"key": seat.key, "mode": "peek", "charges": charges}
    answer = await gateway.post("/v1/check", Decision, body=body)
    if not answer.value.allowed:
        raise Unavailable(f"the gate refuses {seat.actor.customer_id}: {answer.value.reason}")
    return answer
