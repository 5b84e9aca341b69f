"""A decision as its receipt tells it."""

from __future__ import annotations

from gateway.admission.caller import Caller
from gateway.admission.decision import Decision
from gateway.admission.order import Order
from gateway.receipt import Receipt, ReceiptCharge


def receipt_of(decision: Decision, order: Order, *, caller: Caller) -> Receipt:
    """What is signed: who, what was asked, what was decided, by which numbers, when."""
    return Receipt(
        decision_id=decision.decision_id,
        tenant=caller.tenant_id,
        customer=caller.customer_id,
        path=caller.path,
        mode=order.mode.value,
        allowed=decision.allowed,
        reason=decision.reason.value,
        level=decision.level,
        limit=decision.limit,
        would=decision.would,
        refused_feature=decision.refused_feature,
        replayed=decision.replayed,
        degraded=decision.degraded,
        at_ms=decision.decided_at_ms,
        currency=decision.currency,
        cost_nanos=None if decision.degraded else decision.cost_nanos,
        balance_nanos=decision.balance_nanos if decision.currency else None,
        hold=decision.hold.hold_id if decision.hold else "",
        charges=tuple(
            ReceiptCharge(
                feature=asked.feature,
                quantity=asked.quantity,
                limit_units=told.limit_units,
                remaining_units=told.remaining_units,
                reset_at_ms=told.reset_at_ms,
                cost_nanos=told.cost_nanos,
                currency=told.currency,
            )
            for asked, told in zip(order.charges, decision.charges, strict=True)
        ),
    )
