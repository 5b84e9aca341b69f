"""Error replies, translated into the house's tree of failures.

Scripts answer `CODE detail`. The server's own codes mean that nothing was written: it is loading, full, read-only,
or busy with a script that somebody else runs; in a cluster, that the slot is on its way to another node.
"""

from __future__ import annotations

from billing_core.errors import Failure, IdempotencyConflict, InvariantBroken, NotFound, Unavailable, Unprocessable
from gateway.state.resp import ErrorReply
from lua.library import is_absent

_CONTRADICTIONS = {
    "INVALID quantity": "only a gauge takes a negative quantity or a level, and a gauge cannot be held",
    "INVALID level": "the gauge would fall below zero",
    "INVALID feature": "the hold has no charge of this feature",
    "OVERFLOW quantity": "the units or the cost of the window would pass 2^53 - 1",
}
_NOT_NOW = frozenset(
    {
        "UNAVAILABLE", "LOADING", "BUSY", "OOM", "READONLY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "CLUSTERDOWN",
        "TRYAGAIN", "MOVED", "ASK", "NOAUTH", "NOPERM",
    }
)  # fmt: skip


def failure_of(error: ErrorReply) -> Failure:
    """The failure that an error reply means."""
    text = str(error)
    if text == "CONFLICT idempotency":
        return IdempotencyConflict("this key came before with other content", field="idempotency_key")
    if error.code == "UNKNOWN":
        return NotFound(f"no such {error.detail or 'customer'}", field=error.detail or "customer")
    if text in _CONTRADICTIONS:
        return Unprocessable(_CONTRADICTIONS[text], field=error.detail)
    if error.code in _NOT_NOW:
        return Unavailable(f"Redis cannot decide now: {error.code.lower()}")
    if is_absent(error):
        return Unavailable("Redis cannot decide now: it takes no functions")
    return InvariantBroken(f"a script failed: {error}")
