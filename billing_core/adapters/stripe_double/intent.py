"""Payment intents: what Stripe does when one is created, confirmed or canceled, as far as the house can see it.

How a payment method behaves is told by the name of the test method that it was made from:

    pm_card_visa, pm_card_mastercard             succeeds
    pm_card_chargeDeclined                       declined: generic_decline
    pm_card_chargeDeclinedInsufficientFunds      declined: insufficient_funds
    pm_card_chargeDeclinedExpiredCard            declined: expired_card
    pm_card_authenticationRequired               declined off session: authentication_required
    pm_usBankAccount_success                     processing, and succeeds when it is settled
    pm_usBankAccount_insufficientFunds           processing, and fails when it is settled

Source: docs.stripe.com/testing, /payments/paymentintents/lifecycle.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from billing_core.adapters.stripe_double.answer import Json, invalid

MINIMUM: Mapping[str, int] = MappingProxyType({"usd": 50, "eur": 50, "gbp": 30, "jpy": 50})
MAXIMUM = 99_999_999


class Behavior(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a confirmed intent. `code` and `decline_code` belong to a decline."""

    status: str = "succeeded"
    code: str = ""
    decline_code: str = ""
    ends: str = ""


def _decline(code: str, decline_code: str) -> Behavior:
    return Behavior(status="requires_payment_method", code=code, decline_code=decline_code)


BEHAVIORS: Mapping[str, Behavior] = MappingProxyType(
    {
        "pm_card_visa": Behavior(),
        "pm_card_mastercard": Behavior(),
        "pm_card_chargeDeclined": _decline("card_declined", "generic_decline"),
        "pm_card_chargeDeclinedInsufficientFunds": _decline("card_declined", "insufficient_funds"),
        "pm_card_chargeDeclinedExpiredCard": _decline("expired_card", "expired_card"),
        "pm_card_authenticationRequired": _decline("authentication_required", "authentication_required"),
        "pm_usBankAccount_success": Behavior(status="processing", ends="succeeded"),
        "pm_usBankAccount_insufficientFunds": Behavior(status="processing", ends="requires_payment_method"),
    }
)

EVENT_OF: Mapping[str, str] = MappingProxyType(
    {
        "succeeded": "payment_intent.succeeded",
        "processing": "payment_intent.processing",
        "requires_payment_method": "payment_intent.payment_failed",
        "canceled": "payment_intent.canceled",
    }
)
_OPEN = frozenset({"requires_payment_method", "requires_confirmation", "requires_action", "requires_capture"})


def new_name(prefix: str) -> str:
    """An id in Stripe's way: `pi_3` and 22 letters and digits."""
    return f"{prefix}_3{secrets.token_hex(11)}"


def made(params: Json, *, created: int) -> Json:
    """An intent that waits for its confirmation.

    Raises: StripeError for an amount that Stripe does not charge.
    """
    amount, currency = params["amount"], str(params["currency"]).lower()
    if amount < MINIMUM.get(currency, 1):
        raise invalid("Amount is below the minimum charge amount", code="amount_too_small", param="amount")
    if amount > MAXIMUM:
        raise invalid("Amount must be no more than 99999999", code="amount_too_large", param="amount")
    name = new_name("pi")
    return {
        "id": name,
        "object": "payment_intent",
        "amount": amount,
        "amount_received": 0,
        "automatic_payment_methods": params.get("automatic_payment_methods"),
        "cancellation_reason": None,
        "canceled_at": None,
        "capture_method": "automatic",
        "client_secret": f"{name}_secret_{secrets.token_hex(8)}",
        "confirmation_method": "automatic",
        "created": created,
        "currency": currency,
        "customer": params.get("customer"),
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": params.get("metadata") or {},
        "next_action": None,
        "payment_method": params.get("payment_method"),
        "status": "requires_confirmation" if params.get("payment_method") else "requires_payment_method",
    }


def confirmed(intent: Json, behavior: Behavior) -> Json:
    """The intent after its confirmation; a decline stands in `last_payment_error`.

    Raises: StripeError where the intent is over already.
    """
    if intent["status"] not in _OPEN:
        raise _unexpected(intent, "confirm")
    return moved(intent, behavior.status, code=behavior.code, decline_code=behavior.decline_code)


def moved(intent: Json, status: str, *, code: str = "", decline_code: str = "") -> Json:
    """The intent in another status."""
    paid = status == "succeeded"
    after = intent | {
        "status": status,
        "amount_received": intent["amount"] if paid else 0,
        "latest_charge": new_name("ch") if status in {"succeeded", "processing"} else intent["latest_charge"],
        "last_payment_error": None,
    }
    if status == "requires_payment_method":
        after["last_payment_error"] = {
            "type": "card_error",
            "code": code or "payment_intent_payment_attempt_failed",
            "decline_code": decline_code or "insufficient_funds",
            "message": "Your payment method was declined.",
        }
    return after


def canceled(intent: Json, *, reason: str | None, at: int) -> Json:
    """The intent after its cancellation.

    Raises: StripeError where money moves or has moved.
    """
    if intent["status"] not in _OPEN:
        raise _unexpected(intent, "cancel")
    return intent | {"status": "canceled", "canceled_at": at, "cancellation_reason": reason}


def _unexpected(intent: Json, act: str) -> Exception:
    return invalid(
        f"You cannot {act} this PaymentIntent because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
        param="",
    )
