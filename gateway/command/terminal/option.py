"""Options that several commands have in common, named once."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from billing_core.errors import InvalidInput

Limit = Annotated[int, typer.Option(min=0, help="How many to show; 0 means all.")]
CustomerArgument = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id.")]
CustomerFilter = Annotated[str, typer.Option("--customer", help="Only this customer's.")]
IdempotencyKey = Annotated[
    str,
    typer.Option(help="Names this act, so that repeating it does nothing twice; made at random if left out."),
]
Since = Annotated[
    str, typer.Option("--from", metavar="TIME", help="From this instant on (ISO 8601, UTC unless told).")
]
Until = Annotated[
    str, typer.Option("--to", metavar="TIME", help="Before this instant (ISO 8601, UTC unless told).")
]


class ReceiptDraft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was seen on the bank's statement, as the control plane takes it."""

    method: str
    reference: str
    received_at: str | None = None


def receipt(
    *,
    method: Annotated[str, typer.Option(help="ach or wire.")],
    reference: Annotated[str, typer.Option(help="What the bank statement says.")],
    received_at: Annotated[str, typer.Option(metavar="TIME", help="When it came; now if left out.")] = "",
) -> ReceiptDraft:
    """The options of a receipt. Raises: InvalidInput where a time is none."""
    at = instant_or_none(received_at, field="received-at")
    return ReceiptDraft(method=method, reference=reference, received_at=at)


def key_or_new(key: str) -> str:
    """The key that was told, or a random one."""
    return key or f"cli-{secrets.token_hex(12)}"


def instant_or_none(text: str, *, field: str) -> str | None:
    """A time as the planes read it, RFC 3339 in UTC; None for "".

    Raises: InvalidInput where it is no time.
    """
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"{text!r} is not a time like 2026-03-01T00:00", field=field) from None
    instant = instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    return instant.isoformat().replace("+00:00", "Z")
