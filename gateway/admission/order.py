"""What is asked for, and the script call that decides it.

An order names features with quantities, each feature once, and how they are to be taken: `consume` debits, `peek`
only looks, `hold` sets aside for later. Planning is pure: an order and a caller become one act of `lua/` with its
keys and arguments, and the ids that the act will carry.

A retry must find the first answer. With an idempotency key the decision id is computed from tenant, customer and
key, so that the retry names the decision that was made, whichever process it reaches; without one it is random. The
digest of what was asked lets the script tell a retry from another request under the same key.
"""

from __future__ import annotations

import hashlib
import secrets
from enum import StrEnum

import msgspec

from billing_core.contract.keys import hold_key, new_hold_id
from billing_core.contract.usage_event import EventBody, encode_body
from gateway.admission.caller import Caller
from gateway.state.resp import Word

_ID_BYTES = 16
_NO_PATH, _NEVER_LATE, _NOT_SHADOW = "", 0, 0


class Mode(StrEnum):
    """How the charges of an order are taken."""

    CONSUME = "consume"
    PEEK = "peek"
    HOLD = "hold"


class OnExpiry(StrEnum):
    """What becomes of a hold that nobody settled."""

    RELEASE = "release"
    CHARGE = "charge"


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One feature and how much of it."""

    feature: str
    quantity: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to decide. `ttl_ms` and `on_expiry` matter to a hold only."""

    charges: tuple[Charge, ...]
    mode: Mode = Mode.CONSUME
    idempotency_key: str = ""
    ttl_ms: int = 0
    on_expiry: OnExpiry = OnExpiry.RELEASE


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """A script call, ready to send. Arguments are described in the script's header."""

    script: str
    keys: tuple[Word, ...]
    args: tuple[Word, ...]
    decision_id: str


def plan(order: Order, caller: Caller, *, window_ms: int) -> Act:
    """The act that decides this order for this caller; `window_ms` is how long an answer is kept for retries."""
    key, names = order.idempotency_key, caller.keys
    decision_id = _decision_id(caller, key)
    pairs: list[Word] = [len(order.charges)]
    for charge in order.charges:
        pairs += (charge.feature, charge.quantity)
    keys: tuple[Word, ...] = (
        names.epoch,
        names.snapshot,
        names.counters,
        names.wallet,
        names.stream,
        names.holds,
        names.shard_holds,
        names.idempotency_prefix + key,
    )
    if order.mode is Mode.PEEK:
        return Act(script="peek", keys=keys, args=(_NO_PATH, *pairs), decision_id=decision_id)
    memory: tuple[Word, ...] = (_digest(order), window_ms) if key else ("", 0)
    head = (*memory, _body(order, caller, decision_id=decision_id), _NO_PATH, _NEVER_LATE, _NOT_SHADOW)
    if order.mode is Mode.CONSUME:
        return Act(script="consume", keys=keys, args=(*head, *pairs), decision_id=decision_id)
    hold_id = new_hold_id(names.shard)
    keys = (*keys, hold_key(hold_id, names.shard))
    args = (*head, hold_id, order.ttl_ms, order.on_expiry.value, *pairs)
    return Act(script="hold", keys=keys, args=args, decision_id=decision_id)


def digest_of_charges(charges: tuple[Charge, ...]) -> str:
    """A digest of features and quantities, whatever their order: what a settlement is recognized by."""
    text = " ".join(sorted(f"{charge.feature}={charge.quantity}" for charge in charges))
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()


def _digest(order: Order) -> str:
    """A digest of what is asked, in its order, because the kept answer tells the charges in that order."""
    charges = " ".join(f"{charge.feature}={charge.quantity}" for charge in order.charges)
    text = f"{order.mode.value} {order.ttl_ms} {order.on_expiry.value} {charges}"
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()


def _decision_id(caller: Caller, key: str) -> str:
    if not key:
        return f"dec_{secrets.token_hex(_ID_BYTES)}"
    name = f"{caller.tenant_id}:{caller.customer_id}:{key}"
    return f"dec_{hashlib.blake2b(name.encode(), digest_size=_ID_BYTES).hexdigest()}"


def _body(order: Order, caller: Caller, *, decision_id: str) -> bytes:
    return encode_body(
        EventBody(
            event_id=decision_id,
            tenant_id=caller.tenant_id,
            customer_id=caller.customer_id,
            features=tuple(charge.feature for charge in order.charges),
            key_hint=caller.key_hint,
        )
    )
