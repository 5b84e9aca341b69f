"""A payment processor, as the house sees one: what it is asked, and the few answers that matter.

An attempt has a name, `payment:attempt`, that the processor keeps as its idempotency key and in its own record of
the charge. Asking twice under one name charges once. A processor that does not answer leaves the outcome unknown;
then the attempt is looked for by its name, and asked for again under the same name if it is not there.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec


class Outcome(StrEnum):
    """What became of an attempt."""

    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    CANCELED = "canceled"


class ChargeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to charge a customer's stored payment method, in minor units."""

    tenant_id: str
    payment_id: str
    attempt: int
    amount_minor: int
    currency: str
    processor_customer: str
    processor_method: str
    description: str

    @property
    def idempotency_key(self) -> str:
        """The attempt's name."""
        return f"{self.payment_id}:{self.attempt}"


class ChargeResult(msgspec.Struct, frozen=True, kw_only=True):
    """News of an attempt. `failure_code` is the processor's word for a decline."""

    outcome: Outcome
    processor_id: str = ""
    failure_code: str = ""


class ProcessorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook, verified and read. Without a payment id it is about something that is not ours."""

    processor: str
    event_id: str
    kind: str
    body: dict[str, object]
    tenant_id: str = ""
    payment_id: str = ""
    attempt: int = 0
    result: ChargeResult | None = None


class Processor(Protocol):
    """Whoever can charge a stored payment method."""

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Charge, once per idempotency key.

        Raises: Unavailable where the outcome is not known.
        """
        ...

    async def find(self, order: ChargeOrder, *, since: datetime) -> ChargeResult | None:
        """What became of an attempt that was sent after `since`; None where the processor never saw it.

        Raises: Unavailable.
        """
        ...

    async def read(self, processor_id: str) -> ChargeResult:
        """What has become of a charge.

        Raises: Unavailable; ProcessorFailure where it does not exist.
        """
        ...

    def event_of(self, payload: bytes, *, signature: str) -> ProcessorEvent:
        """Verify and read a webhook.

        Raises: Unauthenticated where the signature is not the processor's; InvalidInput where it cannot be read.
        """
        ...
