"""The demo: a tenant with a starter catalog, a customer with a plan, a key and a prepaid balance.

It is made over the control plane, as an operator would, once per data folder. Every call carries an idempotency
key made of the data folder's own secret, so that a start that was killed half-way is simply finished by the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.shipped import shipped
from billing_core.errors import ConfigurationError
from gateway.command.client.door import control_plane
from gateway.command.client.plane import new_session
from gateway.command.machine.keyring import Demo, Keyring, save_keyring
from gateway.command.machine.plan import Plan

_CUSTOMER: Final = "acme"


class _Tenant(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    operator_token: str


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    key: str


class _Nothing(msgspec.Struct, frozen=True):
    """An answer that nobody reads."""


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
    salt = hashlib.sha256(keyring.root_token.encode()).hexdigest()[:16]
    async with new_session() as session:
        root = control_plane(session, plan.billing.url, token=keyring.root_token)
        words: dict[str, object] = {"name": "demo"}
        tenant = await root.post("/v1/tenants", _Tenant, body=words, idempotency_key=f"demo-tenant-{salt}")
        operator = control_plane(session, plan.billing.url, token=tenant.value.operator_token)
        await operator.put("/v1/catalog", _Nothing, body=catalog)
        words = {"customer_id": _CUSTOMER}
        await operator.post("/v1/customers", _Nothing, body=words, idempotency_key=f"demo-customer-{salt}")
        keys = f"/v1/customers/{_CUSTOMER}/keys"
        key = await operator.post(keys, _Key, idempotency_key=f"demo-key-{salt}")
    return Demo(
        tenant_id=tenant.value.tenant_id,
        operator_token=tenant.value.operator_token,
        customer_id=_CUSTOMER,
        key=key.value.key,
        catalog=plan.up.demo_catalog,
    )


def read_catalog(name: str) -> dict[str, object]:
    """A catalog by the name of a shipped one or by its path.

    Raises: ConfigurationError where there is no such file or it is not TOML.
    """
    path = Path(name) if name.endswith(".toml") else _shipped_catalog(name)
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not a TOML document: {error}") from None


def _shipped_catalog(name: str) -> Path:
    try:
        return shipped(f"catalogs/{name}.toml")
    except FileNotFoundError:
        raise ConfigurationError(f"up.demo_catalog: no catalog {name!r} is shipped") from None
