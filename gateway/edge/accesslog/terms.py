"""By what a hold of Envoy's is settled: words beside the route, which come back with the access log entry.

    settle            `response_bytes`, `request_bytes`, `bytes` (both), `seconds`: a unit each, or, as in
                      `response_bytes/1024` and `seconds/60`, for each so many that were begun;
                      `header:NAME`, `trailer:NAME`: the whole number that the response says under that name;
                      `held`: as held. Without this word the access log settles nothing
    free              statuses of the response that are not charged, such as `4xx,503`; `5xx` if nothing is said
    on_disconnect     what a response costs whose client went: `delivered` (or nothing) what was seen of it,
                      `held` as held, `release` nothing
    on_upstream_loss  the same, where the upstream went

Bodies are counted as they are, without heads and framing. What nobody has seen, such as a header that did not come,
is settled as held.

The words travel as one text in the dynamic metadata of the request, which no client can reach, beside the hold.

Worked example: `feature=api.bytes&quantity=1000000&settle=response_bytes%2F1024&free=5xx`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code
from gateway.admission.order import Charge, Mode, Order
from gateway.edge.authorize.order import is_number
from gateway.edge.proxy.rule import Loss

_ORDERED: Final = ("settle", "free", "on_disconnect", "on_upstream_loss")
_WORDS: Final = frozenset(_ORDERED)
_SETTLE: Final = re.compile(
    r"(held)|(response_bytes|request_bytes|bytes|seconds)(?:/([1-9][0-9]{0,8}))?"
    r"|(header|trailer):([A-Za-z0-9!#$%&'*+.^_`|~-]+)"
)
_FREE: Final = re.compile(r"[0-9](?:xx|[0-9]{2})")
_MOST_CHARACTERS: Final = 1_024
"""Read texts are remembered, and whoever reaches the port could send long ones."""
_LOSSES: Final = (Loss.DELIVERED, Loss.HELD, Loss.RELEASE)


class Measure(StrEnum):
    """What is counted."""

    HELD = "held"
    RESPONSE_BYTES = "response_bytes"
    REQUEST_BYTES = "request_bytes"
    BYTES = "bytes"
    SECONDS = "seconds"
    HEADER = "header"
    TRAILER = "trailer"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How one hold is settled. `held`: what it holds; `per`: so many are a unit; `name` of a header or trailer."""

    held: Charge
    measure: Measure
    per: int = 1
    name: str = ""
    free: tuple[str, ...] = ("5xx",)
    on_disconnect: Loss = Loss.DELIVERED
    on_upstream_loss: Loss = Loss.DELIVERED

    def is_free(self, status: int) -> bool:
        """Whether responses with this status are not charged."""
        text = f"{status:03}"
        return text in self.free or f"{text[0]}xx" in self.free


def terms_beside(extensions: Mapping[str, str], order: Order) -> str:
    """What is said beside a route, as the text that comes back; empty where nothing is.

    Raises: InvalidInput.
    """
    if _WORDS.isdisjoint(extensions):
        return ""
    if order.mode is not Mode.HOLD:
        raise InvalidInput("has a meaning for a hold only", field="settle")
    if "settle" not in extensions:
        raise InvalidInput("says by what the hold is settled, and is missing", field="settle")
    (charge,) = order.charges
    return _written(charge, tuple([(one, extensions.get(one)) for one in _ORDERED]))


@lru_cache(maxsize=1_024)
def _written(held: Charge, words: tuple[tuple[str, str | None], ...]) -> str:
    said = {"feature": held.feature, "quantity": str(held.quantity)} | {
        name: text for name, text in words if text is not None
    }
    text = urlencode(said)
    terms_in(text)
    return text


def terms_in(text: str) -> Terms:
    """What such a text says.

    Raises: InvalidInput.
    """
    if len(text) > _MOST_CHARACTERS:
        raise InvalidInput(f"must be at most {_MOST_CHARACTERS} characters, with what is held", field="settle")
    return _read(text)


@lru_cache(maxsize=1_024)
def _read(text: str) -> Terms:
    words = dict(parse_qsl(text, keep_blank_values=True))
    feature, quantity = words.get("feature", ""), words.get("quantity", "")
    if not (is_code(feature) and is_number(quantity)):
        raise InvalidInput("names what is held", field="feature")
    found = _SETTLE.fullmatch(words.get("settle", ""))
    if found is None:
        raise InvalidInput(
            "must be such as response_bytes, seconds/60, header:x-units-used or held", field="settle"
        )
    held, counted, per, told, name = found.groups()
    free = tuple([one for one in words.get("free", "5xx").split(",") if one])
    if any(_FREE.fullmatch(one) is None for one in free):
        raise InvalidInput("must list statuses, such as 4xx,503", field="free")
    return Terms(
        held=Charge(feature=feature, quantity=int(quantity)),
        measure=Measure(held or counted or told),
        per=int(per or 1),
        name=(name or "").lower(),
        free=free,
        on_disconnect=_loss(words, "on_disconnect"),
        on_upstream_loss=_loss(words, "on_upstream_loss"),
    )


def _loss(words: Mapping[str, str], name: str) -> Loss:
    for loss in _LOSSES:
        if words.get(name, Loss.DELIVERED) == loss:
            return loss
    raise InvalidInput("must be delivered, held or release", field=name)
