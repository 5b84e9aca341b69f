"""What is asked for, and the script call that decides it.

An order names features with quantities, each feature once, and how they are to be taken: `consume` debits,
`peek` only looks, `hold` sets aside for later, `record` tells what was done already and is never refused. The
quantity of a gauge is a change of its level, or the level that it is set to. Planning is pure: an order and a
caller become one act of `lua/` with its keys and arguments, and the ids that the act will carry.

A retry must find the first answer. With an idempotency key the decision id is computed from tenant, customer and
key, so that the retry names the decision that was made, whichever process it reaches; without one it is random. The
digest of what was asked lets the script tell a retry from another request under the same key. A refusal is an
answer too, but for a shorter time.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from billing_core.contract.keys import hold_key, new_hold_id
from billing_core.contract.usage_event import EventBody, encode_body
from gateway.admission.caller import Caller
from gateway.state.resp import Word

_ID_BYTES = 16
_SOME_ID: Final = f"dec_{'?' * 2 * _ID_BYTES}"


class Mode(StrEnum):
    """How the charges of an order are taken."""

    CONSUME = "consume"
    PEEK = "peek"
    HOLD = "hold"
    RECORD = "record"


class OnExpiry(StrEnum):
    """What becomes of a hold that nobody settled."""

    RELEASE = "release"
    CHARGE = "charge"


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One feature and how much of it; `is_level`: the quantity is what a gauge is set to."""

    feature: str
    quantity: int
    is_level: bool = False

    @property
    def word(self) -> Word:
        """The quantity as the scripts take it: `=5` sets a gauge."""
        return f"={self.quantity}" if self.is_level else self.quantity


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to decide.

    `ttl_ms` and `on_expiry` matter to a hold only; `shadow` records refusals, making none; of a decision that is
    `attested` (a receipt is signed) all numbers are told, so Redis makes it.
    """

    charges: tuple[Charge, ...]
    mode: Mode = Mode.CONSUME
    idempotency_key: str = ""
    ttl_ms: int = 0
    on_expiry: OnExpiry = OnExpiry.RELEASE
    shadow: bool = False
    attested: bool = False


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """A script call, ready to send. Arguments are described in the script's header.

    `digest` is empty where no answer is kept; else whoever acts under the same answer key excludes this act.
    """

    script: str
    keys: tuple[Word, ...]
    args: tuple[Word, ...]
    decision_id: str
    answer_key: str
    digest: str
    body: bytes
    hold_id: str = ""

    @property
    def place(self) -> str:
        """The customer's snapshot: where the act is run, and with whom it takes turns."""
        return str(self.keys[1])


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How an order is to be carried out.

    `window_ms`: for how long an answer is kept for retries; `refusal_ms`: a refusal, at most, and only where the
    caller gave a key. `not_after_ms`: on Redis' clock, later than this nothing is done; 0 never too late. `keyed`:
    an answer is kept even where the caller gave no key for it. `mark` stands in the usage event as its `reason`.
    `hold_id`: of a hold whose id is not to be made of chance alone.
    """

    window_ms: int
    refusal_ms: int = 0
    not_after_ms: int = 0
    keyed: bool = False
    mark: str = ""
    hold_id: str = ""


def plan(order: Order, caller: Caller, *, terms: Terms) -> Act:
    """The act that decides this order for this caller."""
    names, mode = caller.keys, order.mode
    decision_id = decision_id_of(caller, order.idempotency_key)
    key = order.idempotency_key or (decision_id if terms.keyed else "")
    answer_key = names.idempotency_prefix + key
    digest = digest_of_order(order, caller.path) if key else ""
    body = _body(order, caller, decision_id=decision_id, mark=terms.mark)
    keys: tuple[Word, ...] = (
        names.epoch, names.snapshot, names.counters, names.wallet, names.stream, names.holds, names.shard_holds,
        answer_key,
    )  # fmt: skip
    window_ms = terms.window_ms if key else 0
    refusal_ms = terms.refusal_ms if order.idempotency_key else 0
    hold_id = ""
    if mode is Mode.PEEK:
        head: tuple[Word, ...] = (caller.path,)
    elif mode is Mode.RECORD:
        head = (digest, window_ms, body, caller.path)
    else:
        head = (digest, window_ms, refusal_ms, body, caller.path, terms.not_after_ms, 1 if order.shadow else 0)
    if mode is Mode.HOLD:
        hold_id = terms.hold_id or new_hold_id(names.shard)
        keys = (*keys, hold_key(hold_id, names.shard))
        head = (*head, hold_id, order.ttl_ms, order.on_expiry.value)
    return Act(
        script=mode.value,
        keys=keys,
        args=(*head, *pairs_of(order.charges)),
        decision_id=decision_id,
        answer_key=answer_key,
        digest=digest,
        body=body,
        hold_id=hold_id,
    )


def pairs_of(charges: tuple[Charge, ...]) -> list[Word]:
    """Charges as the scripts take them: how many, then feature and quantity of each."""
    pairs: list[Word] = [len(charges)]
    for charge in charges:
        pairs += (charge.feature, charge.word)
    return pairs


def digest_of_charges(charges: tuple[Charge, ...]) -> str:
    """A digest of features and quantities, whatever their order: what a settlement is recognized by."""
    text = " ".join(sorted(f"{charge.feature}={charge.word}" for charge in charges))
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()


def digest_of_order(order: Order, path: str) -> str:
    """A digest of what is asked, in its order, because the kept answer tells the charges in that order."""
    charges = " ".join([f"{charge.feature}={charge.word}" for charge in order.charges])
    text = f"{order.mode.value} {order.ttl_ms} {order.on_expiry.value} {int(order.shadow)} {path} {charges}"
    return hashlib.blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()


def decision_id_of(caller: Caller, key: str) -> str:
    """Made of chance, or of the idempotency key."""
    if not key:
        return f"dec_{_CHANCE.take()}"
    name = f"{caller.tenant_id}:{caller.customer_id}:{key}"
    return f"dec_{hashlib.blake2b(name.encode(), digest_size=_ID_BYTES).hexdigest()}"


def _body(order: Order, caller: Caller, *, decision_id: str, mark: str) -> bytes:
    charges = order.charges
    features = (charges[0].feature,) if len(charges) == 1 else tuple([charge.feature for charge in charges])
    owner = (caller.tenant_id, caller.customer_id, caller.key_hint, caller.path, mark)
    before, after = _around_id(owner, features)
    return b"%b%b%b" % (before, decision_id.encode(), after)


@lru_cache(maxsize=16_384)
def _around_id(owner: tuple[str, str, str, str, str], features: tuple[str, ...]) -> tuple[bytes, bytes]:
    """What stands before and behind the decision id in a body; all ids are of one length."""
    tenant_id, customer_id, key_hint, path, mark = owner
    body = encode_body(
        EventBody(
            event_id=_SOME_ID,
            tenant_id=tenant_id,
            customer_id=customer_id,
            features=features,
            key_hint=key_hint,
            path=path,
            reason=mark,
        )
    )
    before, _, after = body.partition(_SOME_ID.encode())
    return before, after


class _Chance:
    """Random bytes, fetched for many ids at once: one system call for each would cost more than the id.

    Invariant: a process that is forked has chances of its own.
    """

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew."""
        self._digits, self._at = "", 0

    def take(self) -> str:
        """Hexadecimal digits of so many bytes that nobody else has."""
        if self._at == len(self._digits):
            self._digits, self._at = secrets.token_hex(_ID_BYTES * 256), 0
        self._at += 2 * _ID_BYTES
        return self._digits[self._at - 2 * _ID_BYTES : self._at]


_CHANCE: Final = _Chance()
