"""How whoever is refused for money may pay, as the operator offers it in a file. Nothing is offered without one.

    for a person    `top_up_url`, where the operator takes payments: in `payment` of the problem, and as
                    `Link: <...>; rel="payment"`, because some proxies let only headers through
    for a program   `[x402]`, an offer of x402 version 2: in `PAYMENT-REQUIRED`, base64 of its JSON

`{customer}` stands for the customer wherever it is written, percent-encoded. A program is told of the offer where
the balance is too low, and not where the customer is suspended: a top-up would not lift that, and nobody should pay
for nothing.

The gateway takes no payment and verifies none; a request that comes with `PAYMENT-SIGNATURE` is decided like any
other. Whoever serves `resource.url` of the offer does, and tops the wallet up through the control plane; then the
request that was refused may be made again, under a new idempotency key if it has one.

Source: x402 specification, version 2, section 5.1 (PaymentRequired), and its HTTP transport; RFC 8288 (Link); link
relation `payment` of RFC 8288's registry; CAIP-2 for the names of networks.
"""

from __future__ import annotations

import re
import tomllib
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import UNSET, UnsetType

from billing_core.contract.problem import decode_json
from billing_core.errors import ConfigurationError, InvalidInput
from gateway.admission.reason import RULES, Reason
from gateway.edge.ratelimit import Headers

REQUIRED_HEADER: Final = "PAYMENT-REQUIRED"
_CUSTOMER: Final = "{customer}"
_FIELD: Final = "payment_offer_file"
_MOST_BYTES: Final = 2_048
_UNPRINTED: Final = re.compile(r'[^\x21-\x7e]|[<>"\\^`|]')

Text = Annotated[str, msgspec.Meta(min_length=1)]


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """How to pay: where a person may."""

    top_up_url: str


class Resource(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """What is paid for: `url` takes the payment."""

    url: Text
    description: str = ""
    mime_type: str = ""


class Requirement(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """One way to pay. `amount` is in the smallest units of the asset, as text."""

    scheme: Text
    network: Annotated[str, msgspec.Meta(pattern=r"^[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}\Z")]
    amount: Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,77}\Z")]
    asset: Text
    pay_to: Text
    max_timeout_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]
    extra: dict[str, Any] = {}


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[x402]` of the file."""

    resource: Resource
    accepts: Annotated[tuple[Requirement, ...], msgspec.Meta(min_length=1, max_length=16)]


class PaymentRequired(msgspec.Struct, frozen=True, kw_only=True):
    """What the header says."""

    x402_version: Literal[2] = msgspec.field(default=2, name="x402Version")
    error: str
    resource: Resource
    accepts: tuple[Requirement, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    top_up_url: str = ""
    x402: Terms | None = None


_DECODER = msgspec.json.Decoder(Document)
_ENCODER = msgspec.json.Encoder()


class Offer:
    """What is told of payment."""

    def __init__(self, document: Document) -> None:
        self._top_up_url = document.top_up_url
        terms = document.x402
        self._required = (
            ""
            if terms is None
            else _ENCODER.encode(
                PaymentRequired(
                    error=RULES[Reason.INSUFFICIENT_BALANCE].title, resource=terms.resource, accepts=terms.accepts
                )
            ).decode()
        )

    def told(self, reason: Reason, customer_id: str) -> tuple[Payment | UnsetType, Headers]:
        """For the body and for the head of a refusal; nothing, unless it is one for money."""
        if reason not in (Reason.INSUFFICIENT_BALANCE, Reason.SUSPENDED):
            return UNSET, ()
        customer, headers = quote(customer_id, safe=""), list[tuple[str, str]]()
        payment: Payment | UnsetType = UNSET
        if self._top_up_url:
            payment = Payment(top_up_url=self._top_up_url.replace(_CUSTOMER, customer))
            headers.append(("Link", f'<{payment.top_up_url}>; rel="payment"'))
        if self._required and reason is Reason.INSUFFICIENT_BALANCE:
            required = self._required.replace(_CUSTOMER, customer).encode()
            headers.append((REQUIRED_HEADER, b64encode(required).decode()))
        return payment, tuple(headers)


NO_OFFER: Final = Offer(Document())


def open_offer(file: str) -> Offer:
    """The offer of a TOML file; none where no file is named.

    Raises: ConfigurationError, one line, naming field and rule.
    """
    if not file:
        return NO_OFFER
    try:
        told = tomllib.loads(Path(file).read_text("utf-8"))
        document = decode_json(msgspec.json.encode(told), _DECODER)
        _check(document)
    except OSError as error:
        raise ConfigurationError(f"{_FIELD}: {file}: cannot be read: {error.strerror}", field=_FIELD) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{_FIELD}: {file}: not a TOML document: {error}", field=_FIELD) from None
    except InvalidInput as fault:
        raise ConfigurationError(f"{_FIELD}: {file}: {fault.field}: {fault.detail}", field=_FIELD) from None
    return Offer(document)


def _check(document: Document) -> None:
    """Raises: InvalidInput."""
    if not document.top_up_url and document.x402 is None:
        raise InvalidInput("is required, or an offer in `x402`", field="top_up_url")
    if document.top_up_url:
        _check_url(document.top_up_url, field="top_up_url")
    if document.x402 is not None:
        _check_url(document.x402.resource.url, field="x402.resource.url")
        if len(_ENCODER.encode(document.x402)) > _MOST_BYTES:
            raise InvalidInput(f"must be at most {_MOST_BYTES} bytes of JSON: it is a header", field="x402")


def _check_url(url: str, *, field: str) -> None:
    """Raises: InvalidInput."""
    bare = url.replace(_CUSTOMER, "customer")
    try:
        parts = urlsplit(bare)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url or _UNPRINTED.search(bare) or {"{", "}"} & set(bare):
        raise InvalidInput("must be an https:// or http:// address, and may have `{customer}` in it", field=field)
