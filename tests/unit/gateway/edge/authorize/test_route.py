"""By when a proxy needs its answer."""

from __future__ import annotations

from typing import Any

import pytest

from billing_core.errors import InvalidInput, NotFound, Unavailable
from gateway.admission.deadline import Deadline
from gateway.admission.decision import Decision
from gateway.admission.order import Order
from gateway.admission.reason import Reason
from gateway.edge.authorize.dialect import envoy_dialect, forward_dialect, nginx_dialect
from gateway.edge.authorize.route import AuthorizeRoute
from gateway.edge.lane.head import Fields
from gateway.edge.message import Answer, Request
from gateway.edge.refusal.answer import open_notices
from gateway.settings import GatewaySettings

SETTINGS = GatewaySettings()


class Gate:
    """Notes by when it was asked; refuses, or fails as it was told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.budget_ms = 0
        self._failure = failure

    async def decide(self, _: object, __: Order, *, deadline: Deadline) -> Decision:
        self.budget_ms = deadline.budget_ms
        if self._failure is not None:
            raise self._failure
        return Decision(reason=Reason.UNKNOWN_KEY, decision_id="")


async def asked(make: Any, gate: Any, *fields: tuple[str, str]) -> Answer:
    route = AuthorizeRoute(gate, None, dialect=make(SETTINGS, open_notices(SETTINGS)), settings=SETTINGS)  # type: ignore[arg-type]
    query = "feature=calls&quantity=1"
    return await route.answer(Request(headers=Fields(fields), query=query, subject="calls/1/a/b"))


ENVOY_WAITS = "x-envoy-expected-rq-timeout-ms"
OURS = "tallygate-deadline-ms"


@pytest.mark.parametrize(
    ("make", "fields", "budget_ms"),
    [
        (envoy_dialect, (), 15),
        (envoy_dialect, ((ENVOY_WAITS, "200"),), 180),
        (envoy_dialect, ((ENVOY_WAITS, "1"),), 1),
        (envoy_dialect, ((ENVOY_WAITS, "900000"),), 60_000),
        (envoy_dialect, ((ENVOY_WAITS, "0"),), 15),
        (envoy_dialect, ((ENVOY_WAITS, "soon"),), 15),
        (envoy_dialect, ((ENVOY_WAITS, "200"), (OURS, "30")), 30),
        (forward_dialect, ((ENVOY_WAITS, "200"),), 15),
        (nginx_dialect, ((OURS, "30"),), 30),
    ],
)
async def test_envoy_says_how_long_it_waits(make: Any, fields: Any, budget_ms: int) -> None:
    """A tenth of that is for the way back; who tells us a deadline of ours gets that."""
    gate = Gate()
    await asked(make, gate, *fields)
    assert gate.budget_ms == budget_ms


@pytest.mark.parametrize("text", ["0", "60001", "x", "1.5"])
async def test_a_deadline_that_is_none_is_refused(text: str) -> None:
    """By its name."""
    for make in (envoy_dialect, forward_dialect):
        with pytest.raises(InvalidInput) as caught:
            await asked(make, Gate(), (OURS, text))
        assert caught.value.field == "Tallygate-Deadline-Ms"
    answer = await asked(nginx_dialect, Gate(), (OURS, text))
    assert (answer.status, dict(answer.headers)["X-Tallygate-Status"]) == (403, "400")


async def test_a_customer_who_is_not_ready_is_no_denial_of_envoys() -> None:
    """Over HTTP as over gRPC its operator says what happens where nothing could be decided."""
    failure = NotFound("no such customer", field="customer")
    with pytest.raises(Unavailable):
        await asked(envoy_dialect, Gate(failure))
    with pytest.raises(NotFound):
        await asked(forward_dialect, Gate(failure))
    assert (await asked(nginx_dialect, Gate(failure))).status == 403
