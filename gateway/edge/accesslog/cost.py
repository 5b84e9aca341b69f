"""What an entry of the access log costs: its terms and what was seen into the end of a hold.

    a status that is free                    the hold is released
    the response came to its end             as the terms say
    the client went, the upstream was lost   as the policy says: what was seen, as held, or nothing

Where a response did not come to its end, the hold's usage event tells what was seen, as behind our own proxy.
"""

from __future__ import annotations

import msgspec

from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.values.money import MAX_EXACT
from gateway.admission.order import Charge
from gateway.edge.accesslog.entry import LogEntry
from gateway.edge.accesslog.terms import Measure, Terms
from gateway.edge.proxy.pricing import units_of
from gateway.edge.proxy.rule import Loss
from gateway.edge.proxy.settlement import Ending

_NANOSECONDS = 1_000_000_000


def policy_of(terms: Terms, ending: Ending) -> Loss:
    """By what such an ending is charged."""
    if ending is Ending.WHOLE:
        return Loss.DELIVERED
    return terms.on_disconnect if ending is Ending.CLIENT_LOST else terms.on_upstream_loss


def charge_of(terms: Terms, entry: LogEntry) -> Charge | None:
    """What is charged; None: nothing, and the hold is released."""
    policy = policy_of(terms, entry.ending)
    if terms.is_free(entry.status) or policy is Loss.RELEASE:
        return None
    units = None if policy is Loss.HELD else _units(terms, entry)
    return terms.held if units is None else msgspec.structs.replace(terms.held, quantity=min(units, MAX_EXACT))


def evidence_of(terms: Terms, entry: LogEntry, *, placed: EventBody) -> bytes:
    """The body of the usage event of a response that did not come to its end; `placed`: as the hold has it."""
    told = {
        "ending": entry.ending.value,
        "policy": policy_of(terms, entry.ending).value,
        "status": str(entry.status),
        "delivered_bytes": str(entry.response_bytes),
        "has_usage": "0",
    }
    return encode_body(msgspec.structs.replace(placed, properties=placed.properties | told))


def _units(terms: Terms, entry: LogEntry) -> int | None:
    """How much it was; None where nobody has seen it."""
    if terms.measure is Measure.HELD:
        return None
    if terms.measure is Measure.HEADER:
        return units_of(entry.headers.get(terms.name))
    if terms.measure is Measure.TRAILER:
        return units_of(entry.trailers.get(terms.name))
    if terms.measure is Measure.SECONDS:
        return -(-entry.duration_ns // (terms.per * _NANOSECONDS))
    counted = 0 if terms.measure is Measure.RESPONSE_BYTES else entry.request_bytes
    counted += 0 if terms.measure is Measure.REQUEST_BYTES else entry.response_bytes
    return -(-counted // terms.per)
