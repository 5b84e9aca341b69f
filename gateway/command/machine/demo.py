"""The demo: a tenant with a starter catalog, a customer with a plan, a key and a prepaid balance.

It is made over the control plane, as an operator would, once per data folder. Every call carries an idempotency
key made of the data folder's own secret, so that a start that was killed half-way is simply finished by the next.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import msgspec

from billing_core.contract.shipped import shipped
from billing_core.errors import ConfigurationError
from gateway.command.control_plane import ControlPlane
from gateway.command.machine.keyring import Demo, Keyring, save_keyring
from gateway.command.machine.plan import Plan


class _Tenant(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: str
    operator_token: str


class _Customer(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    key: str


def ensure_demo(plan: Plan, keyring: Keyring) -> Demo:
    """The folder's demo, made when there is none yet.

    Raises: Failure in the control plane's words; ConfigurationError where the catalog cannot be read.
    """
    if keyring.demo is not None:
        return keyring.demo
    catalog = read_catalog(plan.up.demo_catalog)
    token = plan.environment["TALLYGATE_BILLING_ROOT_TOKEN"] or keyring.root_token
    salt = hashlib.sha256(keyring.root_token.encode()).hexdigest()[:16]
    root = ControlPlane(plan.billing.url, token)
    tenant = root.post("/v1/tenants", {"name": "demo"}, answer=_Tenant, idempotency_key=f"demo-tenant-{salt}")
    operator = ControlPlane(plan.billing.url, tenant.operator_token)
    operator.put("/v1/catalog", catalog)
    words = {"customer_id": "acme"}
    customer = operator.post("/v1/customers", words, answer=_Customer, idempotency_key=f"demo-customer-{salt}")
    keys = f"/v1/customers/{customer.customer_id}/keys"
    key = operator.post(keys, {}, answer=_Key, idempotency_key=f"demo-key-{salt}")
    demo = Demo(
        tenant_id=tenant.tenant_id,
        operator_token=tenant.operator_token,
        customer_id=customer.customer_id,
        key=key.key,
        catalog=plan.up.demo_catalog,
    )
    save_keyring(plan.folder, msgspec.structs.replace(keyring, demo=demo))
    return demo


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
