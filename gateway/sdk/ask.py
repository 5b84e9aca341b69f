"""What a client asks, as bytes, and what the answer's bytes say. No socket is known here.

Every act that changes something has a name of its own, made here unless it was told, and keeps it however often it
is sent: an attempt that comes again finds the first answer. An answer is one of four things: what was asked for; a
failure of the request's own, which is raised; a refusal, which is a value; or none that tells anything, which is
Unavailable and may be tried again.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Generic, TypedDict, TypeVar

import msgspec

from billing_core.contract.problem import Problem, kind_of
from billing_core.errors import Failure, InvalidInput, Unavailable
from billing_core.values.ids import is_code
from gateway.admission.order import Mode, OnExpiry
from gateway.admission.reason import Reason
from gateway.edge.wire import CheckAnswer, EventsAnswer, HoldAnswer, PartAnswer, SettleAnswer

Value = TypeVar("Value")
Quantities = Mapping[str, int]
"""How much of each feature."""

_OK, _REFUSED, _BROKEN = 200, 400, 500
_KEY_BYTES = 16


class OnOutage(StrEnum):
    """What becomes of an act on which nobody decides in time.

    `record`: a check is allowed and charged later, out of the spool; a hold is refused.
    """

    REFUSE = "refuse"
    ALLOW = "allow"
    RECORD = "record"


class Asked(TypedDict, total=False):
    """What a check may say, as `gateway.edge.wire.CheckRequest` has it; `charges` is how much of each feature."""

    key: str
    customer: str
    path: str
    feature: str
    quantity: int
    set: int
    charges: Quantities
    idempotency_key: str
    deadline_ms: int
    shadow: bool
    receipt: bool


class HoldAsked(Asked, total=False):
    """What a hold may say besides; `ttl_ms` it must."""

    ttl_ms: int
    on_expiry: OnExpiry


class Act(msgspec.Struct, Generic[Value], frozen=True, kw_only=True):
    """One thing to ask for: where, in which bytes, and what comes back."""

    path: str
    body: bytes
    answer: type[Value]


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def new_key() -> str:
    """The name of a fresh act."""
    return secrets.token_hex(_KEY_BYTES)


def check(asked: Asked | HoldAsked, *, mode: Mode = Mode.CONSUME) -> Act[CheckAnswer]:
    """Ask for a decision; whatever changes something has an idempotency key."""
    said: dict[str, Any] = {**asked}
    if "charges" in said:
        said["charges"] = _charges(said["charges"])
    if mode is not Mode.CONSUME:
        said["mode"] = mode
    if mode is not Mode.PEEK:
        said["idempotency_key"] = said.get("idempotency_key") or new_key()
    return Act(path="/v1/check", body=_ENCODER.encode(said), answer=CheckAnswer)


def late_charge(act: Act[CheckAnswer]) -> bytes | None:
    """What charges a check that turns out to be refused after its work was done: a record of it.

    Empty for a peek, which costs nothing. None for a hold: nobody knows what of it will be used. The key is made of
    the check's, so that it is one act however often it is made.
    """
    said: dict[str, Any] = msgspec.json.decode(act.body)
    mode = said.get("mode", Mode.CONSUME)
    if mode != Mode.CONSUME:
        return b"" if mode == Mode.PEEK else None
    key = hashlib.blake2b(str(said["idempotency_key"]).encode(), digest_size=_KEY_BYTES).hexdigest()
    kept = {name: value for name, value in said.items() if name not in ("shadow", "receipt", "deadline_ms")}
    return _ENCODER.encode(kept | {"mode": Mode.RECORD, "idempotency_key": f"late-{key}"})


def settle(hold_id: str, used: Quantities) -> Act[SettleAnswer]:
    """End a hold by what was used; a feature that is not named settles as held."""
    body = {"charges": _charges(used)} if used else {}
    return Act(path=_hold_path(hold_id, "settle"), body=_ENCODER.encode(body), answer=SettleAnswer)


def part(hold_id: str, used: Quantities, *, ttl_ms: int = 0) -> Act[PartAnswer]:
    """Charge a part of a hold now."""
    body: dict[str, Any] = {"charges": _charges(used), "final": False, "idempotency_key": new_key()}
    if ttl_ms:
        body["ttl_ms"] = ttl_ms
    return Act(path=_hold_path(hold_id, "settle"), body=_ENCODER.encode(body), answer=PartAnswer)


def extend(hold_id: str, more: Quantities, *, ttl_ms: int) -> Act[CheckAnswer]:
    """Keep a hold for longer, and set more aside."""
    body: dict[str, Any] = {"ttl_ms": ttl_ms, "idempotency_key": new_key()}
    if more:
        body["charges"] = _charges(more)
    return Act(path=_hold_path(hold_id, "extend"), body=_ENCODER.encode(body), answer=CheckAnswer)


def release(hold_id: str) -> Act[SettleAnswer]:
    """End a hold without a charge."""
    return Act(path=_hold_path(hold_id, "release"), body=b"{}", answer=SettleAnswer)


def events(raws: list[bytes]) -> Act[EventsAnswer]:
    """Tell usage that did not pass the gate: events as they travel."""
    return Act(path="/v1/events", body=b"[%b]" % b",".join(raws), answer=EventsAnswer)


def headers(token: str) -> dict[str, str]:
    """What every request says of itself."""
    told = {"Content-Type": "application/json", "Accept": "application/json"}
    return told | {"Authorization": f"Bearer {token}"} if token else told


def read(act: Act[Value], status: int, *, content: bytes) -> Value:
    """What was asked for.

    Raises: Unavailable where nothing can be told from the answer; else the failure that it tells.
    """
    if _OK <= status < _REFUSED:
        try:
            return msgspec.json.decode(content, type=act.answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unavailable(f"what answered at {act.path} is no gateway of this version") from None
    raise _failure(status, content)


def allowed_without_decision() -> CheckAnswer:
    """What stands for a decision where none was made and `on_outage` allows: nothing was charged by it."""
    return msgspec.structs.replace(undecided(Reason.UNAVAILABLE), allowed=True, degraded=True)


def undecided(reason: Reason) -> CheckAnswer:
    """A refusal that nobody was asked about."""
    return CheckAnswer(
        allowed=False,
        reason=reason,
        decision_id=None,
        replayed=False,
        customer=None,
        currency=None,
        cost_nanos=0,
        balance_nanos=None,
        charges=(),
    )


def hold_in(answer: CheckAnswer) -> HoldAnswer | None:
    """The hold that was placed, if one was."""
    return None if isinstance(answer.hold, msgspec.UnsetType) else answer.hold


def _failure(status: int, content: bytes) -> Failure:
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = Problem(type="about:blank", title="", status=status, detail=f"it answered {status}", code="")
    if status >= _BROKEN or problem.retry_is_safe:
        return Unavailable(problem.detail, field=problem.field)
    return (kind_of(problem.code) or Failure)(problem.detail, field=problem.field)


def _hold_path(hold_id: str, verb: str) -> str:
    """The path of an act on a hold. Raises: InvalidInput where the id could lead elsewhere."""
    if not is_code(hold_id):
        raise InvalidInput("is no id of a hold", field="hold")
    return f"/v1/holds/{hold_id}/{verb}"


def _charges(quantities: Quantities) -> list[dict[str, str | int]]:
    return [{"feature": feature, "quantity": quantity} for feature, quantity in quantities.items()]
