"""Who stands at the door, and what a credential opens.

A key names its customer and is all that a check by key needs. An operator's token opens whatever the tenant owns:
a check by customer, events, live reads. A live read is also open to that customer's own key. Nobody is told
whether a credential is unknown or merely of the wrong kind for another tenant's data: what a tenant does not own
does not exist.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from billing_core.contract.keys import CustomerKeys, Role, customer_keys
from billing_core.errors import Forbidden, Unauthenticated
from gateway.admission.deadline import Deadline
from gateway.state.directory import Credential, Directory

_BEARER = "bearer "


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose account something is decided."""

    tenant_id: str
    customer_id: str
    keys: CustomerKeys
    key_hint: str = ""


@lru_cache(maxsize=65_536)
def caller_of_customer(tenant_id: str, customer_id: str) -> Caller:
    """A customer whom an operator names."""
    return Caller(tenant_id=tenant_id, customer_id=customer_id, keys=customer_keys(tenant_id, customer_id))


async def caller_of_key(directory: Directory, key: str, *, deadline: Deadline) -> Caller | None:
    """The caller behind a key; None where nobody knows it or it opens no customer's account.

    Raises: Unavailable.
    """
    known = await directory.credential(key, deadline_ms=deadline.left_ms())
    if known is None or known.keys is None or known.record.role is not Role.CALLER:
        return None
    record = known.record
    return Caller(tenant_id=record.tenant_id, customer_id=record.customer_id, keys=known.keys, key_hint=record.hint)


async def tenant_of_operator(directory: Directory, authorization: str, *, deadline: Deadline | None = None) -> str:
    """The tenant whose operator's token the Authorization header carries.

    Raises: Unauthenticated, Forbidden, Unavailable.
    """
    known = await _known(directory, authorization, deadline_ms=deadline.left_ms() if deadline else 0)
    if known.record.role is not Role.OPERATOR:
        raise Forbidden("this needs an operator's token", field="authorization")
    return known.record.tenant_id


async def tenant_of_reader(directory: Directory, authorization: str, *, customer_id: str) -> str:
    """The tenant of whoever may read this customer: an operator, or the customer's own key.

    Raises: Unauthenticated, Forbidden, Unavailable.
    """
    known = await _known(directory, authorization)
    if known.record.role is not Role.OPERATOR and known.record.customer_id != customer_id:
        raise Forbidden("this key belongs to another customer", field="authorization")
    return known.record.tenant_id


def bearer_of(authorization: str) -> str:
    """The credential in an Authorization header; empty where it carries none."""
    scheme = authorization[: len(_BEARER)]
    return authorization[len(_BEARER) :].strip() if scheme.lower() == _BEARER else ""


async def _known(directory: Directory, authorization: str, *, deadline_ms: int = 0) -> Credential:
    secret = bearer_of(authorization)
    if not secret:
        raise Unauthenticated("send `Authorization: Bearer <token>`", field="authorization")
    known = await directory.credential(secret, deadline_ms=deadline_ms)
    if known is None:
        raise Unauthenticated("the token is not known", field="authorization")
    return known
