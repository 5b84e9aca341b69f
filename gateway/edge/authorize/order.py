"""What a proxy asks, in the words that its operator has written into its configuration.

    query    `?mode=hold&ttl_ms=60000&feature=tokens&quantity=500`, and behind it whatever the client has appended
    path     `tokens/500;mode=hold;ttl_ms=60000`, and behind the next slash the path that the client asked for
    beside   the same names beside a route of Envoy's, for its calls over gRPC

    feature    which; required
    quantity   how much, a whole number; required
    mode       `consume` (or nothing) charges; `peek` only looks; `hold` sets aside, for `ttl_ms`, and tells the
               hold's id, for whoever settles it when the response is known; `on_expiry` says what becomes of a hold
               that nobody settles: `release` (or nothing) or `charge`
    shadow     `1`: a refusal is recorded and not made

Some proxies append the client's own query to ours. So of feature and quantity the first of each counts, and options
count in front of both, where no client can put them: what stands there and is no option is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Charge, Mode, OnExpiry, Order
from gateway.edge.wire import MAX_TTL_MS

SHORT: Final = 256
"""Words up to this length are worth remembering; longer ones are a client's."""

_CHARGE: Final = frozenset({"feature", "quantity"})
_OPTIONS: Final = frozenset({"mode", "ttl_ms", "on_expiry", "shadow"})
_DIGITS: Final = 16
_DIGEST_BYTES: Final = 16


def order_in_query(query: str) -> Order:
    """What a query asks for; the first of each name, and options in front.

    Raises: InvalidInput.
    """
    return _short_query(query) if len(query) <= SHORT else _order_in_query(query)


def _order_in_query(query: str) -> Order:
    words: dict[str, str] = {}
    has_charge = False
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name in _CHARGE:
            has_charge = True
            words.setdefault(name, unquote_plus(value))
            if words.keys() >= _CHARGE:
                break
        elif pair and not has_charge:
            _put_option(words, name, value=unquote_plus(value))
    return order_of(words)


_short_query = lru_cache(maxsize=4_096)(_order_in_query)


def words_in_path(subject: str) -> str:
    """The operator's words at the beginning of a path; the client's path begins at the second slash."""
    end = subject.find("/", subject.find("/") + 1)
    return subject if end < 0 else subject[:end]


def order_in_path(words: str) -> Order:
    """What the first words of a path ask for, such as `tokens/500;mode=hold;ttl_ms=60000`.

    Raises: InvalidInput.
    """
    return _short_path(words) if len(words) <= SHORT else _order_in_path(words)


def _order_in_path(words: str) -> Order:
    feature, _, rest = words.partition("/")
    quantity, *options = rest.split(";")
    told = {"feature": feature, "quantity": quantity}
    for option in options:
        name, _, value = option.partition("=")
        _put_option(told, name, value=value)
    return order_of(told)


_short_path = lru_cache(maxsize=4_096)(_order_in_path)


def order_of(words: Mapping[str, str]) -> Order:
    """What these words ask for; whatever else stands there is none of ours.

    Raises: InvalidInput.
    """
    charge = charge_of(words.get("feature", ""), words.get("quantity", ""))
    mode, shadow = _mode(words.get("mode", Mode.CONSUME.value)), words.get("shadow") or "0"
    is_hold = mode is Mode.HOLD
    if shadow not in ("0", "1"):
        raise InvalidInput("must be 0 or 1", field="shadow")
    if not is_hold and not {"ttl_ms", "on_expiry"}.isdisjoint(words):
        raise InvalidInput("has a meaning for a hold only", field="ttl_ms")
    return Order(
        charges=(charge,),
        mode=mode,
        ttl_ms=_ttl_ms(words.get("ttl_ms", "")) if is_hold else 0,
        on_expiry=_on_expiry(words.get("on_expiry", OnExpiry.RELEASE.value)),
        shadow=shadow == "1" and mode is not Mode.PEEK,
    )


def with_request(order: Order, request_id: str, *, shadow: bool) -> Order:
    """The order as one request has it: under its id, if it has one, and in shadow mode where all are."""
    if order.mode is Mode.PEEK or not (request_id or shadow):
        return order
    key = request_key(order.charges, request_id, mode=order.mode) if request_id else ""
    return msgspec.structs.replace(order, idempotency_key=key, shadow=order.shadow or shadow)


def charge_of(feature: str, quantity: str) -> Charge:
    """What a proxy's configuration says is charged, as text.

    Raises: InvalidInput.
    """
    if not is_code(feature):
        raise InvalidInput("the proxy's configuration must name one, such as feature=api.calls", field="feature")
    if not is_number(quantity):
        raise InvalidInput(
            "the proxy's configuration must say how much: a whole number below 2^53", field="quantity"
        )
    return Charge(feature=feature, quantity=int(quantity))


def is_number(text: str) -> bool:
    """Whether it is a whole number that is counted exactly."""
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) <= MAX_EXACT


def request_key(charges: Sequence[Charge], request_id: str, *, mode: Mode = Mode.CONSUME) -> str:
    """The idempotency key of charges in a proxy's request: a route that asks for two features pays for both."""
    words = [f"{charge.feature} {charge.quantity}" for charge in charges]
    name = " ".join((*([] if mode is Mode.CONSUME else [mode.value]), *words, request_id))
    return f"req:{hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=_DIGEST_BYTES).hexdigest()}"


def _put_option(words: dict[str, str], name: str, *, value: str) -> None:
    if name not in _OPTIONS:
        raise InvalidInput("options are mode, ttl_ms, on_expiry and shadow", field=name or "mode")
    if name in words:
        raise InvalidInput("stands there twice", field=name)
    words[name] = value


def _mode(text: str) -> Mode:
    try:
        mode = Mode(text)
    except ValueError:
        mode = Mode.RECORD
    if mode is Mode.RECORD:
        raise InvalidInput("must be consume, peek or hold", field="mode")
    return mode


def _on_expiry(text: str) -> OnExpiry:
    try:
        return OnExpiry(text)
    except ValueError:
        raise InvalidInput("must be release or charge", field="on_expiry") from None


def _ttl_ms(text: str) -> int:
    if not (is_number(text) and 1 <= int(text) <= MAX_TTL_MS):
        raise InvalidInput(f"a hold needs a whole number from 1 to {MAX_TTL_MS}", field="ttl_ms")
    return int(text)
