"""Usage events as a client tells them: in words of their own, with an id that is kept for good."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Required, TypedDict

import msgspec

from billing_core.values.clock import system_now, to_ms
from gateway.sdk.ask import new_key
from gateway.usage.event import ClientEvent


class EventAsked(TypedDict, total=False):
    """What happened: `event` is its name, as meters read it. `id` and `time` are made unless they are told."""

    event: Required[str]
    customer: Required[str]
    fields: Mapping[str, str | int | Decimal]
    id: str
    time: datetime


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def encode_event(asked: EventAsked) -> tuple[str, bytes]:
    """Its id, and the event as it travels."""
    event_id = asked.get("id") or new_key()
    event = ClientEvent(
        id=event_id,
        event=asked["event"],
        time=to_ms(asked.get("time") or system_now()),
        customer=asked["customer"],
        fields={**asked.get("fields", {})},
    )
    return event_id, _ENCODER.encode(event)
