"""Stripe as the house's processor: payment intents, created and confirmed in one call, off session.

An attempt's name is Stripe's idempotency key and stands in the intent's metadata, so that an attempt whose answer
was lost can be found, or asked for again without a second charge. What Stripe answers is one of three things: a
status, a definite refusal (a card that declines, a request that cannot be), or nothing that can be relied on. The
last becomes Unavailable, and the attempt is looked for later.

Stripe counts ISK and UGX in hundredths although ISO 4217 does not, and wants amounts of three-digit currencies to
end in zero; one that does not is refused here rather than charged as another amount.

Source: docs.stripe.com/api/idempotent_requests, /payments/payment-intents, /currencies#special-cases.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

import aiohttp
import msgspec
import stripe

from billing_core.errors import InvalidInput, ProcessorFailure, Unauthenticated, Unavailable
from billing_core.payments.processor import ChargeOrder, ChargeResult, Outcome, ProcessorEvent
from billing_core.values.clock import to_ms
from billing_core.values.money import minor_exponent

PROCESSOR = "stripe"
TENANT_MARK, PAYMENT_MARK, ATTEMPT_MARK = "tallygate_tenant", "tallygate_payment", "tallygate_attempt"
CALL_TIMEOUT_S = 30
_HUNDREDTHS = frozenset({"ISK", "UGX"})
_PAGE = 100

_OUTCOMES: Mapping[str, Outcome] = MappingProxyType(
    {"succeeded": Outcome.SUCCEEDED, "processing": Outcome.PROCESSING, "canceled": Outcome.CANCELED}
)
"""What an intent's status means; any other status of a confirmed intent means that it was not paid."""

_NEWS = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.canceled",
    }
)

_UNRELIABLE = (
    stripe.APIConnectionError,
    stripe.APIError,
    stripe.AuthenticationError,
    stripe.IdempotencyError,
    stripe.PermissionError,
    stripe.RateLimitError,
    aiohttp.ClientError,
    TimeoutError,
)
"""Nothing is known of the charge, or nothing was tried and the operator must mend something first."""


class _PaymentError(msgspec.Struct, frozen=True):
    code: str | None = None
    decline_code: str | None = None


class _IntentName(msgspec.Struct, frozen=True):
    id: str


class _RefusalError(_PaymentError, frozen=True):
    payment_intent: _IntentName | None = None


class _Refusal(msgspec.Struct, frozen=True):
    """The body of an answer that declines."""

    error: _RefusalError = _RefusalError()


class _Intent(msgspec.Struct, frozen=True):
    """What the house reads of a payment intent."""

    id: str
    status: str
    metadata: dict[str, str] = {}
    last_payment_error: _PaymentError | None = None

    @property
    def result(self) -> ChargeResult:
        """What became of it."""
        outcome, error = _OUTCOMES.get(self.status, Outcome.DECLINED), self.last_payment_error
        code = (error.decline_code or error.code or "") if error else ""
        failure_code = (code or self.status) if outcome is Outcome.DECLINED else ""
        return ChargeResult(outcome=outcome, processor_id=self.id, failure_code=failure_code)

    def is_of(self, order: ChargeOrder) -> bool:
        """Whether it was made for this attempt."""
        marks = (self.metadata.get(PAYMENT_MARK), self.metadata.get(ATTEMPT_MARK))
        return marks == (order.payment_id, str(order.attempt))


class _EventData(msgspec.Struct, frozen=True):
    object: dict[str, Any]


class _Event(msgspec.Struct, frozen=True):
    id: str
    type: str
    data: _EventData


class StripeAccess(msgspec.Struct, frozen=True, kw_only=True):
    """Where Stripe is and what opens it; an empty base is Stripe's own."""

    api_key: str
    api_base: str = ""
    webhook_secret: str = ""
    timeout_s: int = CALL_TIMEOUT_S


class StripeProcessor:
    """Charges stored payment methods at Stripe."""

    def __init__(self, access: StripeAccess, client: stripe.StripeClient) -> None:
        self._access = access
        self._intents = client.v1.payment_intents

    async def charge(self, order: ChargeOrder) -> ChargeResult:
        """Create and confirm an intent, once per attempt. Raises: Unavailable."""
        amount = stripe_amount(order.amount_minor, order.currency)
        if amount is None:
            return ChargeResult(outcome=Outcome.DECLINED, failure_code="amount_not_chargeable")
        try:
            intent = await self._intents.create_async(
                {
                    "amount": amount,
                    "currency": order.currency.lower(),
                    "customer": order.processor_customer,
                    "payment_method": order.processor_method,
                    "automatic_payment_methods": {"enabled": True, "allow_redirects": "never"},
                    "confirm": True,
                    "off_session": True,
                    "description": order.description,
                    "metadata": {
                        TENANT_MARK: order.tenant_id,
                        PAYMENT_MARK: order.payment_id,
                        ATTEMPT_MARK: str(order.attempt),
                    },
                },
                {"idempotency_key": order.idempotency_key},
            )
        except stripe.CardError as error:
            return _declined(error)
        except stripe.InvalidRequestError as error:
            return ChargeResult(outcome=Outcome.DECLINED, failure_code=error.code or "invalid_request")
        except _UNRELIABLE as error:
            raise Unavailable(f"Stripe did not say what became of a charge: {error}") from error
        return _read(intent).result

    async def find(self, order: ChargeOrder, *, since: datetime) -> ChargeResult | None:
        """The attempt's intent, by its metadata among the customer's. Raises: Unavailable."""
        try:
            page = await self._intents.list_async(
                {
                    "customer": order.processor_customer,
                    "created": {"gte": to_ms(since) // 1000},
                    "limit": _PAGE,
                }
            )
            async for intent in page.auto_paging_iter():
                found = _read(intent)
                if found.is_of(order):
                    return found.result
        except stripe.InvalidRequestError:
            return None  # Stripe does not know the customer, so it has charged nothing
        except _UNRELIABLE as error:
            raise Unavailable(f"Stripe did not list its charges: {error}") from error
        return None

    async def read(self, processor_id: str) -> ChargeResult:
        """What has become of an intent. Raises: Unavailable; ProcessorFailure where it does not exist."""
        try:
            return _read(await self._intents.retrieve_async(processor_id)).result
        except stripe.InvalidRequestError as error:
            raise ProcessorFailure(f"Stripe does not know {processor_id}: {error}") from error
        except _UNRELIABLE as error:
            raise Unavailable(f"Stripe did not say what became of {processor_id}: {error}") from error

    def event_of(self, payload: bytes, *, signature: str) -> ProcessorEvent:
        """A verified webhook. Raises: Unauthenticated; InvalidInput."""
        try:
            stripe.WebhookSignature.verify_header(
                payload, signature, self._access.webhook_secret, stripe.Webhook.DEFAULT_TOLERANCE
            )
            event = msgspec.json.decode(payload, type=_Event)
            body: dict[str, object] = msgspec.json.decode(payload)
        except (stripe.SignatureVerificationError, UnicodeDecodeError) as error:
            raise Unauthenticated(f"not signed by Stripe: {error}", field="Stripe-Signature") from None
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"not a Stripe event: {error}", field="body") from None
        known = ProcessorEvent(processor=PROCESSOR, event_id=event.id, kind=event.type, body=body)
        return _news(known, event) if event.type in _NEWS else known


@asynccontextmanager
async def open_stripe(access: StripeAccess) -> AsyncGenerator[StripeProcessor]:
    """A processor with connections of its own, closed at the end."""
    transport = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=access.timeout_s))
    client = stripe.StripeClient(
        access.api_key,
        base_addresses={"api": access.api_base} if access.api_base else {},
        http_client=transport,
        max_network_retries=0,
    )
    try:
        yield StripeProcessor(access, client)
    finally:
        await transport.close_async()


def stripe_amount(minor: int, currency: str) -> int | None:
    """The amount as Stripe counts it; None where Stripe cannot charge it exactly."""
    if currency in _HUNDREDTHS:
        return minor * 10 ** (2 - minor_exponent(currency))
    return None if minor_exponent(currency) == 3 and minor % 10 else minor


def _news(known: ProcessorEvent, event: _Event) -> ProcessorEvent:
    """The event with what it says of a payment; as it is where the intent is not the house's."""
    try:
        intent = msgspec.convert(event.data.object, _Intent)
        attempt = int(intent.metadata.get(ATTEMPT_MARK, "0"))
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidInput(f"not a payment intent: {error}", field="data.object") from None
    return msgspec.structs.replace(
        known,
        tenant_id=intent.metadata.get(TENANT_MARK, ""),
        payment_id=intent.metadata.get(PAYMENT_MARK, ""),
        attempt=attempt,
        result=intent.result,
    )


def _read(intent: stripe.PaymentIntent) -> _Intent:
    return msgspec.convert(intent.to_dict(), _Intent)


def _declined(error: stripe.CardError) -> ChargeResult:
    told = msgspec.convert(error.json_body or {}, _Refusal).error
    return ChargeResult(
        outcome=Outcome.DECLINED,
        processor_id=told.payment_intent.id if told.payment_intent else "",
        failure_code=told.decline_code or told.code or "card_declined",
    )
