"""`/v1/authorize/settle`: the end of a hold, for proxies that can call a URL when the response is known.

Any method is answered alike and a body means nothing (a proxy should send none: one above `max_body_bytes` is
refused). What there is to know stands in the query, which the operator writes into the proxy's configuration, with
the proxy's own variables in it:

    /v1/authorize/settle?free=4xx,5xx&hold=$hold&status=$status&quantity=$used

    free       statuses of the response that are not charged, in front of the hold: the hold is released
    hold       what `X-Tallygate-Hold` told; empty: nothing was held, so there is nothing to settle
    status     of the response; 0: there was none
    quantity   what was really used; empty: what was held

Of each name the first counts, and an empty value may also be written `-`. The hold's id is the credential. 204 says
that the hold has ended so; asked again, it says so again. 404: nobody knows the hold. 409: it had ended otherwise
before. 503: Redis cannot be told now. Nothing is promised then, and whoever can should ask again; for those who
cannot, this process tries on by itself for a while, and settling twice is harmless.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from billing_core.errors import InvalidInput
from gateway.admission.order import Charge
from gateway.edge.authorize.order import is_number
from gateway.edge.message import Answer, Request
from gateway.edge.proxy.settlement import MOST_WAITING, Settlements, settlement_of

_NAMES: Final = frozenset({"hold", "status", "quantity"})
_EMPTY: Final = frozenset({"", "-"})
_FREE: Final = re.compile(r"[0-9](?:xx|[0-9]{2})")
_STATUS: Final = re.compile(r"[0-9]{1,3}")
_PLACES: Final = MOST_WAITING // 2
"""Who has no more than a URL to call may be anybody, and keeps nobody else's settlement from waiting."""

_DONE: Final = Answer(status=204)
_SOME: Final = ""
"""The feature of a charge that is the hold's first, whatever that is."""


class SettleRoute:
    """Ends holds for proxies."""

    def __init__(self, settlements: Settlements) -> None:
        self._settlements = settlements

    async def settle(self, request: Request) -> Answer:
        """End the hold by what was used, or release it."""
        words = _words_in(request.query)
        hold_id, charges = words["hold"], _charges(words)
        if hold_id not in _EMPTY:
            await self._settlements.end(settlement_of(hold_id, charges), places=_PLACES)
        return _DONE


def _words_in(query: str) -> dict[str, str]:
    """The first of each name; `free` in front of all the others only. Raises: InvalidInput."""
    words: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name in _NAMES or (name == "free" and not words):
            words.setdefault(name, unquote_plus(value))
    if "hold" not in words:
        raise InvalidInput("the proxy's configuration must name one", field="hold")
    return words


def _charges(words: dict[str, str]) -> tuple[Charge, ...] | None:
    """What is charged; nothing named: as held; None: it is released. Raises: InvalidInput."""
    free = [one for one in words.get("free", "").split(",") if one]
    if any(_FREE.fullmatch(one) is None for one in free):
        raise InvalidInput("must list statuses, such as 4xx,503", field="free")
    status, quantity = words.get("status", ""), words.get("quantity", "")
    if status not in _EMPTY:
        if _STATUS.fullmatch(status) is None:
            raise InvalidInput("must be the status of a response", field="status")
        digits = status.zfill(3)
        if digits in free or f"{digits[0]}xx" in free:
            return None
    if quantity in _EMPTY:
        return ()
    if not is_number(quantity):
        raise InvalidInput("must be a whole number below 2^53", field="quantity")
    return (Charge(feature=_SOME, quantity=int(quantity)),)
