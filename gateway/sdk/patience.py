"""How long an act is tried, and what becomes of it when nobody answers.

An attempt that finds nobody, breaks off or takes too long is followed by the next, after a pause that doubles and
has some chance in it, until the act's deadline. Where the gateway has just let an act pass without an answer, it
is away: each further act tries once, so that callers do not wait for what is not there, until one is answered.

Worked example, deadline 2 s, attempts of 0.5 s, a gateway that hangs: attempts begin at 0, 0.52, 1.06 and 1.62 s,
and the last is cut at 2 s. The next act ends after its first 0.5 s.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Final, Required, TypedDict

import msgspec

from billing_core.errors import ConfigurationError, Unavailable
from gateway.edge.wire import CheckAnswer
from gateway.sdk.ask import Act, OnOutage, late_charge

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway is, who asks, and for how long; and where on the disk stands what is told later."""

    url: str
    on_outage: OnOutage
    folder: Path | None = None
    fsync: bool = False
    token: str = ""
    deadline_ms: int = 2_000
    attempt_ms: int = 500
    connections: int = 100


class Said(TypedDict, total=False):
    """What a process says once of its client; only `on_outage` has no default.

    `token` is an operator's, for checks by customer and for events. `spool` is a folder for what is told later;
    with `fsync` that is on the disk before it is promised, and a machine that dies loses none of it. `connections`
    are the most at once; of the blocking client, the most that are kept.
    """

    on_outage: Required[OnOutage | str]
    token: str
    deadline_ms: int
    attempt_ms: int
    spool: Path | str
    fsync: bool
    connections: int


class Health:
    """Whether the last act was answered; shared by all acts of a client."""

    def __init__(self) -> None:
        self.is_away = False


class Patience:
    """One act's time. Clock: monotonic seconds of this process."""

    def __init__(self, terms: Terms, health: Health) -> None:
        self._terms = terms
        self._health = health
        self._pause_s = _FIRST_PAUSE_S
        self.until_s = time.monotonic() + terms.deadline_ms / 1_000

    def attempt_until_s(self) -> float:
        """When the attempt that begins now is given up."""
        return min(self.until_s, time.monotonic() + self._terms.attempt_ms / 1_000)

    def answered(self) -> None:
        """Somebody answered."""
        self._health.is_away = False

    def next_pause_s(self, fault: str, *, is_broken: bool = False) -> float:
        """How long to wait before the next attempt; at once where only a kept connection `is_broken`.

        Raises: Unavailable where there is none.
        """
        pause_s = 0.0 if is_broken else self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        if (self._health.is_away and not is_broken) or time.monotonic() + pause_s >= self.until_s:
            self._health.is_away = True
            raise Unavailable(f"no answer within {self._terms.deadline_ms} ms: {fault}")
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return pause_s


def late_charge_of(act: Act[CheckAnswer], failure: Unavailable, *, on_outage: OnOutage) -> bytes:
    """A check on which nobody decided is allowed: what is to be kept for a later charge; empty: nothing.

    Raises: the failure, where it is refused.
    """
    if on_outage is OnOutage.ALLOW:
        return b""
    late = late_charge(act) if on_outage is OnOutage.RECORD else None
    if late is None:
        raise failure
    return late


def terms_of(  # noqa: PLR0913 - all of `Said`
    url: str,
    *,
    on_outage: OnOutage | str,
    token: str = "",
    deadline_ms: int = 2_000,
    attempt_ms: int = 500,
    spool: Path | str = "",
    fsync: bool = False,
    connections: int = 100,
) -> Terms:
    """Terms that hold. Raises: ConfigurationError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigurationError("must be http://host[:port] or https://host[:port]", field="url")
    try:
        outage = OnOutage(on_outage)
    except ValueError:
        raise ConfigurationError("must be refuse, allow or record", field="on_outage") from None
    if outage is OnOutage.RECORD and not spool:
        raise ConfigurationError("is needed where on_outage is record: a folder on the disk", field="spool")
    if not 0 < attempt_ms <= deadline_ms:
        raise ConfigurationError("must be more than 0, and no more than deadline_ms", field="attempt_ms")
    return Terms(
        url=url.rstrip("/"),
        on_outage=outage,
        folder=Path(spool) if spool else None,
        fsync=fsync,
        token=token,
        deadline_ms=deadline_ms,
        attempt_ms=attempt_ms,
        connections=connections,
    )
