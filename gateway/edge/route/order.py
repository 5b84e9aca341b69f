"""What a body asks for: its fields, put together into an order, or refused where they contradict one another."""

from __future__ import annotations

from billing_core.contract.path import parse_path
from billing_core.errors import InvalidInput
from gateway.admission.order import Charge, Mode, OnExpiry, Order
from gateway.edge.wire import ChargeRequest, CheckRequest


def order_of(asked: CheckRequest) -> Order:
    """What a check asks for.

    Raises: InvalidInput where its fields do not go together.
    """
    if _is_plain(asked):
        quantity = 1 if asked.quantity is None else asked.quantity
        return Order(
            charges=(Charge(feature=asked.feature or "", quantity=quantity),),
            idempotency_key=asked.idempotency_key or "",
            shadow=asked.shadow,
            attested=asked.receipt,
        )
    _check_caller(asked)
    _check_places(asked.charges, feature=asked.feature, quantity=asked.quantity, set=asked.set)
    charges = charges_of(_single(asked.feature, asked.quantity, level=asked.set), charges=asked.charges)
    if not charges:
        raise InvalidInput("one of `feature` and `charges` is required", field="feature")
    _check_mode(asked, charges)
    return Order(
        charges=charges,
        mode=asked.mode,
        idempotency_key=asked.idempotency_key or "",
        ttl_ms=asked.ttl_ms or 0,
        on_expiry=asked.on_expiry or OnExpiry.RELEASE,
        shadow=asked.shadow,
        attested=asked.receipt,
    )


def _is_plain(asked: CheckRequest) -> bool:
    """Whether it is what nearly all ask, a caller by its key for one feature: then no rule is left to break."""
    return (
        asked.mode is Mode.CONSUME
        and asked.feature is not None
        and asked.key is not None
        and asked.customer is None
        and asked.charges is None
        and asked.set is None
        and asked.path is None
        and asked.ttl_ms is None
        and asked.on_expiry is None
    )


def used_charges(
    feature: str | None, quantity: int | None, *, charges: tuple[ChargeRequest, ...] | None
) -> tuple[Charge, ...]:
    """Charges of a hold, where none need be named; what is named has its quantity, and no gauge is among them.

    Raises: InvalidInput.
    """
    if feature is not None and quantity is None and charges is None:
        raise InvalidInput("is required beside `feature`", field="quantity")
    _check_places(charges, feature=feature, quantity=quantity)
    named = charges_of(_single(feature, quantity, level=None), charges=charges)
    for charge in named:
        if charge.is_level or charge.quantity < 0:
            raise InvalidInput("a hold has no gauge: each quantity is at least 0", field="charges")
    return named


def charges_of(single: ChargeRequest | None, *, charges: tuple[ChargeRequest, ...] | None) -> tuple[Charge, ...]:
    """The charges that are named one way or the other; none where neither is used.

    Raises: InvalidInput.
    """
    if charges is None:
        return (_charge(single, field=""),) if single is not None else ()
    named = tuple(_charge(one, field=f"charges[{index}].") for index, one in enumerate(charges))
    if len({one.feature for one in named}) != len(named):
        raise InvalidInput("each feature may be charged once", field="charges")
    return named


def _single(feature: str | None, quantity: int | None, *, level: int | None) -> ChargeRequest | None:
    if feature is None:
        for name, value in (("quantity", quantity), ("set", level)):
            if value is not None:
                raise InvalidInput("needs a `feature`", field=name)
        return None
    return ChargeRequest(feature=feature, quantity=quantity, set=level)


def _charge(asked: ChargeRequest, *, field: str) -> Charge:
    if asked.set is None:
        return Charge(feature=asked.feature, quantity=1 if asked.quantity is None else asked.quantity)
    if asked.quantity is not None:
        raise InvalidInput("stands either here or in `quantity`, not in both", field=f"{field}set")
    return Charge(feature=asked.feature, quantity=asked.set, is_level=True)


def _check_places(charges: tuple[ChargeRequest, ...] | None, **single: str | int | None) -> None:
    for name, value in single.items():
        if charges is not None and value is not None:
            raise InvalidInput("stands either here or in `charges`, not in both", field=name)


def _check_caller(asked: CheckRequest) -> None:
    if (asked.key is None) == (asked.customer is None):
        raise InvalidInput("exactly one of `key` and `customer` is required", field="key")
    if asked.path is not None:
        if asked.key is not None:
            raise InvalidInput("stands beside `customer` only: a key brings its own", field="path")
        parse_path(asked.path)


def _check_mode(asked: CheckRequest, charges: tuple[Charge, ...]) -> None:
    mode = asked.mode
    if mode is Mode.PEEK and asked.idempotency_key is not None:
        raise InvalidInput("has no meaning for a peek, which changes nothing", field="idempotency_key")
    if mode in (Mode.PEEK, Mode.RECORD) and asked.shadow:
        raise InvalidInput(f"has no meaning for a {mode.value}, which refuses nothing", field="shadow")
    if mode is Mode.HOLD and asked.ttl_ms is None:
        raise InvalidInput("is required for a hold", field="ttl_ms")
    for name, value in (("ttl_ms", asked.ttl_ms), ("on_expiry", asked.on_expiry)):
        if mode is not Mode.HOLD and value is not None:
            raise InvalidInput("has a meaning for a hold only", field=name)
    if mode is Mode.HOLD and any(charge.is_level or charge.quantity < 0 for charge in charges):
        raise InvalidInput("a gauge cannot be held: each quantity is at least 0", field="quantity")
