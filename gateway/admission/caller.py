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
from billing_core.errors import Forbidden, Unauthenticated, Unavailable
from gateway.admission.deadline import Deadline
from gateway.state.directory import Credential, Directory

_BEARER = "bearer "


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """On whose account something is decided, and at which place of the customer's budgets.

    `is_remembered`: Redis did not say who that is, and what it said last was taken for it.
    """

    tenant_id: str
    customer_id: str
    keys: CustomerKeys
    key_hint: str = ""
    path: str = ""
    is_remembered: bool = False


@lru_cache(maxsize=65_536)
def caller_of_customer(tenant_id: str, customer_id: str, *, path: str = "") -> Caller:
    """A customer whom an operator names, and a path of its budgets."""
    keys = customer_keys(tenant_id, customer_id)
    return Caller(tenant_id=tenant_id, customer_id=customer_id, keys=keys, path=path)


def caller_at_hand(directory: Directory, key: str) -> Caller | None:
    """The caller behind a key, where that is remembered; None says nothing, and `caller_of_key` has to be asked."""
    known = directory.at_hand(key)
    return caller_of(known) if known is not None else None


async def caller_of_key(directory: Directory, key: str, *, deadline: Deadline) -> Caller | None:
    """The caller behind a key; None where nobody knows it or it opens no customer's account.

    While Redis is away, whoever it named last, as remembered.

    Raises: Unavailable.
    """
    known, is_remembered = await _named(directory, key, deadline=deadline)
    caller = caller_of(known) if known is not None else None
    return msgspec.structs.replace(caller, is_remembered=True) if caller is not None and is_remembered else caller


@lru_cache(maxsize=65_536)
def caller_of(known: Credential) -> Caller | None:
    """Whom a credential names, if it opens a customer's account."""
    record = known.record
    if known.keys is None or record.role is not Role.CALLER:
        return None
    return Caller(
        tenant_id=record.tenant_id,
        customer_id=record.customer_id,
        keys=known.keys,
        key_hint=record.hint,
        path="/".join(record.path),
    )


async def caller_of_operator(
    directory: Directory, authorization: str, *, customer_id: str, path: str, deadline: Deadline
) -> Caller:
    """The customer whom the operator names whose token the Authorization header carries; remembered as for a key.

    Raises: Unauthenticated, Forbidden, Unavailable.
    """
    known, is_remembered = await _named(directory, _secret(authorization), deadline=deadline)
    if known is None:
        raise Unauthenticated("the token is not known", field="authorization")
    if known.record.role is not Role.OPERATOR:
        raise Forbidden("this needs an operator's token", field="authorization")
    caller = caller_of_customer(known.record.tenant_id, customer_id, path=path)
    return msgspec.structs.replace(caller, is_remembered=True) if is_remembered else caller


async def tenant_of_operator(directory: Directory, authorization: str) -> str:
    """The tenant whose operator's token the Authorization header carries.

    Raises: Unauthenticated, Forbidden, Unavailable.
    """
    known = await _known(directory, authorization)
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


async def _known(directory: Directory, authorization: str) -> Credential:
    known = await directory.credential(_secret(authorization))
    if known is None:
        raise Unauthenticated("the token is not known", field="authorization")
    return known


async def _named(directory: Directory, secret: str, *, deadline: Deadline) -> tuple[Credential | None, bool]:
    """What stands behind a secret, and whether it is only remembered. Raises: Unavailable."""
    try:
        return await directory.credential(secret, deadline_ms=deadline.left_ms()), False
    except Unavailable:
        known = directory.remembered(secret)
        if known is None:
            raise
        return known, True


def _secret(authorization: str) -> str:
    secret = bearer_of(authorization)
    if not secret:
        raise Unauthenticated("send `Authorization: Bearer <token>`", field="authorization")
    return secret
