"""Forms: a command that is put together once for all orders that differ in a few words only.

Nearly all orders are the same again: one caller, one feature, to be consumed. Of the words of the command that
decides them five differ each time: the decision id (in the usage event's body), until when it may run, how much it
is, and for a caller who retries the answer key and the digest of what was asked. So such an order is planned once,
with marks in those places, its command is packed, and the marks are cut out. What a form makes is, byte for byte,
what the plan makes: a form knows nothing about commands but where the marks were.

Worked example: `... dec_<id> ... $13 4102444800123 ... $5 calls $16 8007199254740991` has three holes: id, instant,
quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from gateway.admission.caller import Caller
from gateway.admission.order import Charge, Mode, Order, Terms, decision_id_of, digest_of_order, plan
from gateway.state.resp import Word


class Pack(Protocol):
    """Makes a command as it goes over the wire, by its script's name."""

    def __call__(self, name: str, keys: Sequence[Word], *, args: Sequence[Word]) -> bytes: ...


_SOME_MS: Final = 4_102_444_800_123
_SOME_QUANTITY: Final = 8_007_199_254_740_991
_SOME_KEY: Final = "~form~"
_FIRST_MS: Final = 10**12
_LAST_MS: Final = 10**13 - 1
"""Instants of the length of the mark: from 2001 to 2286."""

_CAPACITY: Final = 32_768
_NEVER: Final = b"never seen"

Kind = tuple[str, str, str, str, bool, bool]
"""Customer, hint of the key, path, feature; whether in shadow mode, and whether under an idempotency key."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command that is packed, and the decision that it will make."""

    packed: bytes
    decision_id: str


class Forms:
    """The forms of the orders that came twice: to make one costs more than to plan, and is repaid by the next."""

    def __init__(self, pack: Pack, *, terms: Terms) -> None:
        self._pack = pack
        self._terms = terms
        self._forms: dict[Kind, bytes | None] = {}

    def command(self, caller: Caller, order: Order, *, not_after_ms: int) -> Command | None:
        """The command that decides this order; None where there is no form for it."""
        charges, key = order.charges, order.idempotency_key
        if len(charges) != 1 or order.mode is not Mode.CONSUME or not _FIRST_MS <= not_after_ms <= _LAST_MS:
            return None
        charge, names = charges[0], caller.keys
        if charge.is_level:
            return None
        kind = (names.snapshot, caller.key_hint, caller.path, charge.feature, order.shadow, bool(key))
        form = self._forms.get(kind, _NEVER)
        if form is _NEVER:
            self._keep(kind, None)
            return None
        if form is None:
            form = self._form(kind, caller, order=order)
        if not form:
            return None
        decision_id, quantity = decision_id_of(caller, key), b"%d" % charge.quantity
        late = (decision_id.encode(), not_after_ms, len(quantity), quantity)
        if not key:
            return Command(packed=form % late, decision_id=decision_id)
        answer_key = (names.idempotency_prefix + key).encode()
        kept = (len(answer_key), answer_key, digest_of_order(order, caller.path).encode())
        return Command(packed=form % (kept + late), decision_id=decision_id)

    def exact(self, caller: Caller, order: Order, *, is_keyed: bool) -> bytes:
        """The form of this order alone, for whoever keeps it: only id, instant and answer key are left open.

        Empty where there is none. `is_keyed`: each time it comes it has an idempotency key of its own.
        """
        if len(order.charges) != 1 or order.mode is not Mode.CONSUME or order.charges[0].is_level:
            return b""
        marked = msgspec.structs.replace(order, idempotency_key=_SOME_KEY if is_keyed else "")
        act = plan(marked, caller, terms=msgspec.structs.replace(self._terms, not_after_ms=_SOME_MS))
        holes = [(_word(act.answer_key), b"$%d\r\n%b\r\n")] if is_keyed else []
        holes += [(act.decision_id.encode(), b"%b"), (_word(str(_SOME_MS)), b"$13\r\n%d\r\n")]
        return _cut(self._pack(act.script, act.keys, args=act.args), holes)

    def _form(self, kind: Kind, caller: Caller, *, order: Order) -> bytes:
        marked = msgspec.structs.replace(
            order,
            charges=(Charge(feature=order.charges[0].feature, quantity=_SOME_QUANTITY),),
            idempotency_key=_SOME_KEY if order.idempotency_key else "",
        )
        act = plan(marked, caller, terms=msgspec.structs.replace(self._terms, not_after_ms=_SOME_MS))
        holes = [(act.decision_id.encode(), b"%b"), (_word(str(_SOME_MS)), b"$13\r\n%d\r\n"),
                 (_word(str(_SOME_QUANTITY)), b"$%d\r\n%b\r\n")]  # fmt: skip
        if act.digest:
            holes[:0] = [(_word(act.answer_key), b"$%d\r\n%b\r\n"), (_word(act.digest), b"$32\r\n%b\r\n")]
        form = _cut(self._pack(act.script, act.keys, args=act.args), holes)
        self._keep(kind, form)
        return form

    def _keep(self, kind: Kind, form: bytes | None) -> None:
        """None: seen once. The oldest gives way."""
        if len(self._forms) >= _CAPACITY and kind not in self._forms:
            del self._forms[next(iter(self._forms))]
        self._forms[kind] = form


def filled(form: bytes, caller: Caller, *, key: str, not_after_ms: int) -> Command | None:
    """The command of an order that is known by its exact form; None while the instant is not known."""
    if not _FIRST_MS <= not_after_ms <= _LAST_MS:
        return None
    decision_id = decision_id_of(caller, key)
    if not key:
        return Command(packed=form % (decision_id.encode(), not_after_ms), decision_id=decision_id)
    answer_key = (caller.keys.idempotency_prefix + key).encode()
    open_words = (len(answer_key), answer_key, decision_id.encode(), not_after_ms)
    return Command(packed=form % open_words, decision_id=decision_id)


def _word(text: str) -> bytes:
    raw = text.encode()
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def _cut(packed: bytes, holes: list[tuple[bytes, bytes]]) -> bytes:
    """The command with a hole where each mark stands; empty where a name looks like a mark."""
    form = b""
    for mark, hole in holes:
        before, found, packed = packed.partition(mark)
        if not found or mark in packed:
            return b""
        form += before.replace(b"%", b"%%") + hole
    return form + packed.replace(b"%", b"%%")
