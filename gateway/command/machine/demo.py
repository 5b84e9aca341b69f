"""The demo: a tenant with a starter catalog, and a customer with a plan, a balance and a key.

It is made over the control plane, as an operator would, once per data folder. Every act carries an idempotency key
made of the data folder's own secret, so that a start that was killed half-way is simply finished by the next one.
The demo stands when the gate lets its key through.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.shipped import shipped
from billing_core.errors import ConfigurationError, InvalidInput, Unavailable
from gateway.command.client.account import ApiKey, Customer, Published, Subscription, Tenant
from gateway.command.client.decision import Decision
from gateway.command.client.door import control_plane
from gateway.command.client.persistence import PatientPlane, Persistence, persist
from gateway.command.client.plane import Plane, new_session
from gateway.command.client.route import route
from gateway.command.machine.keyring import Demo, Keyring, save_keyring
from gateway.command.machine.plan import Plan
from gateway.command.terminal.document import read_toml

_CUSTOMER: Final = "acme"
_CREDIT: Final = "25.00"
_PATIENCE: Final = Persistence(patience_s=30.0)


class _Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What of a catalog's first plan the demo uses: a feature that is counted, and the currency."""

    plan: str
    currency: str
    feature: str


class _Granted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a grant, as far as the demo reads it."""

    grant_id: str


def ensure_demo(plan: Plan, keyring: Keyring) -> Demo:
    """The folder's demo, made when there is none yet.

    Raises: Failure in the control plane's words; ConfigurationError where the catalog cannot be read.
    """
    if keyring.demo is not None:
        return keyring.demo
    demo = asyncio.run(_make_demo(plan, keyring))
    save_keyring(plan.folder, msgspec.structs.replace(keyring, demo=demo))
    return demo


async def _make_demo(plan: Plan, keyring: Keyring) -> Demo:
    catalog = read_catalog(plan.up.demo_catalog)
    offer = _offer_of(catalog, plan.up.demo_catalog)
    run = f"demo-{hashlib.sha256(keyring.root_token.encode()).hexdigest()[:12]}"
    async with new_session() as session:
        root = PatientPlane(control_plane(session, plan.billing.url, token=keyring.root_token), _PATIENCE)
        words = {"tenant_id": run, "name": "demo"}
        tenant = await root.post("/v1/tenants", Tenant, body=words, idempotency_key=f"{run}-tenant")
        operator = PatientPlane(control_plane(session, plan.billing.url, token=tenant.operator_token), _PATIENCE)
        await operator.put("/v1/catalog", Published, body=catalog)
        key = await _seat_customer(operator, offer, run=run)
        gateway = Plane(session, plan.gateway.url, name="gateway", flag="gateway.port")
        await persist(lambda: _peek(gateway, key, feature=offer.feature), _PATIENCE)
    return Demo(
        tenant_id=tenant.tenant_id,
        operator_token=tenant.operator_token,
        customer_id=_CUSTOMER,
        key=key,
        feature=offer.feature,
    )


async def _seat_customer(operator: PatientPlane, offer: _Offer, *, run: str) -> str:
    """A customer on the plan, with credit to spend; the key."""
    words = {"customer_id": _CUSTOMER, "name": "Acme (demo)"}
    await operator.post("/v1/customers", Customer, body=words, idempotency_key=f"{run}-customer")
    words = {"customer_id": _CUSTOMER, "plan": offer.plan}
    await operator.post("/v1/subscriptions", Subscription, body=words, idempotency_key=f"{run}-subscription")
    grants = route("/v1/customers/{}/wallets/{}/grants", _CUSTOMER, offer.currency)
    words = {"amount": _CREDIT, "note": "to try it"}
    await operator.post(grants, _Granted, body=words, idempotency_key=f"{run}-grant")
    keys = route("/v1/customers/{}/keys", _CUSTOMER)
    return (await operator.post(keys, ApiKey, body={"label": "demo"}, idempotency_key=f"{run}-key")).key


async def _peek(gateway: Plane, key: str, *, feature: str) -> None:
    """Raise Unavailable, to be asked again, unless the gate would let the key through."""
    words = {"key": key, "feature": feature, "quantity": 1, "mode": "peek"}
    answer = await gateway.post("/v1/check", Decision, body=words)
    if not answer.value.allowed:
        raise Unavailable(f"the gate refuses the demo's key: {answer.value.reason}")


def read_catalog(name: str) -> dict[str, object]:
    """A catalog by the name of a shipped one or by its path.

    Raises: ConfigurationError where there is no such file; InvalidInput where it is not TOML.
    """
    if name.endswith(".toml"):
        return read_toml(Path(name))
    try:
        return read_toml(shipped(f"catalogs/{name}.toml"))
    except FileNotFoundError:
        raise ConfigurationError(f"up.demo_catalog: no catalog {name!r} is shipped") from None


class _Named(msgspec.Struct, frozen=True):
    code: str
    kind: str = ""


class _Entitled(msgspec.Struct, frozen=True):
    feature: str
    enabled: bool = True


class _PlanWords(msgspec.Struct, frozen=True):
    code: str
    currency: str
    entitlements: tuple[_Entitled, ...] = ()


class _CatalogWords(msgspec.Struct, frozen=True):
    features: tuple[_Named, ...]
    plans: tuple[_PlanWords, ...]


def _offer_of(catalog: dict[str, object], name: str) -> _Offer:
    """The first plan that entitles to something counted. Raises: InvalidInput where there is none."""
    try:
        words = msgspec.convert(catalog, _CatalogWords)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{name}: {error}", field="up.demo_catalog") from None
    counted = {feature.code for feature in words.features if feature.kind == "metered"}
    for plan in words.plans:
        for entitled in plan.entitlements:
            if entitled.enabled and entitled.feature in counted:
                return _Offer(plan=plan.code, currency=plan.currency, feature=entitled.feature)
    raise InvalidInput(f"{name} has no plan with a metered feature", field="up.demo_catalog")
