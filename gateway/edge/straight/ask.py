"""What is asked in the same words again and again.

A caller who asks for the same thing sends the same words, but for an idempotency key. What they mean is worked out
once, because reading is a pure function of the words. Who is behind the credential is looked up every time, because
it may have been revoked a moment ago; what follows from who it is, the form of the command and the template of the
answer, is kept with what was asked for as long as it is the same.

Words that came once are no more than noted, apart from those that are known, and what strangers ask is not known:
so a flood of words that never come again costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from gateway.admission.caller import Caller
from gateway.admission.decision import Decision, Frame
from gateway.admission.order import Order
from gateway.edge.message import Prepared
from gateway.edge.straight.template import Template
from gateway.state.directory import Credential

_CAPACITY: Final = 4_096


class Ask:
    """One order by one credential, and what was found out about it.

    The order has no idempotency key; `is_keyed`: each time it comes with one of its own. `frame` is that of the
    last answer, and `template` fits it; `repeated` is the answer to the decision `local`.
    """

    __slots__ = (
        "budget_ms",
        "caller",
        "credential",
        "digest",
        "form",
        "frame",
        "is_keyed",
        "local",
        "order",
        "repeated",
        "template",
    )

    def __init__(self, order: Order, *, digest: str, is_keyed: bool, budget_ms: int) -> None:
        """`digest` is the credential's; `budget_ms`: how long after it came the answer is needed."""
        self.order = order
        self.digest = digest
        self.is_keyed = is_keyed
        self.budget_ms = budget_ms
        self.credential: Credential | None = None
        self.caller: Caller | None = None
        self.form = b""
        self.frame: Frame | None = None
        self.template: Template | None = None
        self.local: Decision | None = None
        self.repeated: Prepared | None = None


class Asks:
    """What is known of words, the oldest of which give way."""

    def __init__(self, is_known: Callable[[str], bool], *, capacity: int = _CAPACITY) -> None:
        """`is_known`: whether somebody is behind the digest of a credential."""
        self._is_known = is_known
        self._capacity = capacity
        self._asks: dict[Hashable, Ask] = {}
        self._noted: dict[Hashable, bool] = {}
        self.get = self._asks.get
        """What these words mean, where they are known."""

    def meet(self, words: Hashable, read: Callable[[], Ask | None]) -> Ask | None:
        """What words mean that are not known; None where they came for the first time, or have no plain meaning."""
        is_odd = self._noted.get(words)
        if is_odd is None:
            self._make_room(self._noted)
            self._noted[words] = False
        if is_odd is not False:
            return None
        ask = read()
        if ask is None:
            self._noted[words] = True
        elif self._is_known(ask.digest):
            self._make_room(self._asks)
            self._asks[words] = ask
            del self._noted[words]
        return ask

    def _make_room(self, kept: dict[Hashable, Ask] | dict[Hashable, bool]) -> None:
        if len(kept) >= self._capacity:
            del kept[next(iter(kept))]
