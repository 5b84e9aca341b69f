"""What a request is charged, and who pays: the same rule for every kind of application.

The caller's key travels as `Authorization: Bearer` or `X-Api-Key`. A request without one is refused as the gateway
would; one that the rule charges nothing passes unasked.

Each request is an act of its own: no header of a client's is its idempotency key, because who could choose it would
pay once and pass for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gateway.sdk.ask import Asked, Quantities
from gateway.sdk.refusal import nobody


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as a rule may look. Names of headers are in lower case; the path has no query."""

    method: str
    path: str
    headers: Mapping[str, str]


def key_in(visit: Visit) -> str:
    """The caller's key; "" where there is none."""
    scheme, _, secret = visit.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else visit.headers.get("x-api-key", "")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`charges`: how much of each feature, or a function that says so; None or nothing passes unasked.

    Without `ttl_ms` a request is charged before it is served, whatever becomes of it. With it the charge is held,
    settled with the response by what the handler told `current_hold()`, and released where the handler fails or
    answers with a status of `free_from_status` or more.
    """

    charges: Quantities | Callable[[Visit], Quantities | None]
    ttl_ms: int = 0
    free_from_status: int = 500
    key: Callable[[Visit], str] = key_in

    def asked(self, visit: Visit) -> Asked | None:
        """The check for a request; None where it is free. Raises: Refused where nobody would pay."""
        charges = self.charges(visit) if callable(self.charges) else self.charges
        if not charges:
            return None
        key = self.key(visit)
        if not key:
            raise nobody()
        return Asked(key=key, charges=charges)
