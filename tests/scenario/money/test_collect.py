"""Money comes in once: under lost answers, doubled webhooks, crashes between answer and commit, and kill -9."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from billing_core.errors import Conflict, IdempotencyConflict, InvalidInput, Unauthenticated, Unprocessable
from billing_core.flows.money.collect import KEY_LIFETIME, LEASE, Webhook, apply_webhook
from billing_core.invoices.invoice import InvoiceState
from billing_core.payments.payment import PaymentState, TopUp

if TYPE_CHECKING:
    from collections.abc import Callable

    from billing_core.adapters.stripe_processor import StripeProcessor
    from tests.scenario.money.conftest import Double, World

VISA = ("cus_ada", "pm_card_visa")
NANO = 10**9


async def told_all(double: Double) -> None:
    async with asyncio.timeout(20):
        while not await double.is_told():  # noqa: ASYNC110 - what is asked for happens in another process
            await asyncio.sleep(0)


async def charged(double: Double) -> tuple[int, int]:
    summary = await double.summary()
    return summary["succeeded"], summary["received"]


async def test_a_fee_is_charged_once_although_answers_are_lost_and_webhooks_doubled(
    world: World, double: Double, stripe: StripeProcessor, told: Callable[[Webhook], Any]
) -> None:
    """Three months: one plain, one whose answer is lost and whose webhook says so twice, one without webhooks."""
    double.answer = told
    await world.customer("ada", stripe=VISA)
    subscription = await world.subscribe("ada", "team")
    assert await world.collect(stripe) == 1
    await told_all(double)
    assert await charged(double) == (1, 3100)
    await double.fault("lose_answer")
    await double.fault("double_webhook")
    world.now = subscription.started_at + timedelta(days=28)
    await world.close()
    await world.collect(stripe)
    await told_all(double)
    assert [payment.state for payment in await world.payments()] == [PaymentState.SUCCEEDED] * 2
    await double.fault("hold_webhook")
    await double.fault("lose_answer")
    world.advance(days=31)
    await world.close()
    assert await world.collect(stripe) == 0
    assert (await world.payments())[-1].failure_code == "outcome_unknown"
    world.now += LEASE
    assert await world.collect(stripe) == 1
    assert await charged(double) == (3, 9300)
    await double.clear()
    await told_all(double)
    assert [invoice.state for invoice in await world.invoices()] == [InvoiceState.PAID] * 3
    assert (await world.books())["cash"] == 93 * NANO


async def test_a_lost_request_is_sent_again_under_its_name(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """Nothing was done, nothing is found, and one charge comes of it."""
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")
    await double.fault("lose_request", times=2)
    for _ in range(2):
        assert await world.collect(stripe) == 0
        world.now += LEASE
    assert await world.collect(stripe) == 1
    assert await charged(double) == (1, 3100)


async def test_a_500_after_the_charge_is_found_and_a_500_before_it_ends_with_a_new_name(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """Stripe replays a 500 for a day; the charge is looked for, and after the key's life a new attempt is made."""
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")
    await double.fault("fail_after")
    assert await world.collect(stripe) == 0
    world.now += LEASE
    assert await world.collect(stripe) == 1
    await world.customer("bob", stripe=("cus_bob", "pm_card_visa"))
    await world.subscribe("bob", "team")
    await double.fault("fail_before")
    assert await world.collect(stripe) == 0
    world.now += LEASE
    assert await world.collect(stripe) == 0
    world.now += KEY_LIFETIME
    assert await world.collect(stripe) == 1
    bob = next(payment for payment in await world.payments() if payment.customer_id == "bob")
    assert (bob.state, bob.attempt) == (PaymentState.PENDING, 2)
    world.advance(days=1)
    assert await world.collect(stripe) == 1
    assert await charged(double) == (2, 6200)


class Broken:
    """A processor in a process that stumbles right after the answer came."""

    def __init__(self, real: StripeProcessor) -> None:
        self._real = real
        self.find, self.read, self.event_of = real.find, real.read, real.event_of

    async def charge(self, order: Any) -> Any:
        await self._real.charge(order)
        raise RuntimeError("the process stumbled")


async def test_a_crash_between_the_answer_and_our_commit_charges_once(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """The claim stays; whoever resumes it finds the charge."""
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")
    with pytest.raises(ExceptionGroup):
        await world.collect(Broken(stripe))
    assert (await world.payments())[0].state is PaymentState.PROCESSING
    assert await world.collect(stripe) == 0
    world.now += LEASE
    assert await world.collect(stripe) == 1
    assert await charged(double) == (1, 3100)


async def test_a_worker_killed_with_9_after_stripes_answer_charges_once(
    world: World, double: Double, stripe: StripeProcessor, postgres_url: str
) -> None:
    """A real process, a real SIGKILL, after the money moved and before anything was written."""
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")
    words = (
        sys.executable,
        Path(__file__).parent / "crash_child.py",
        postgres_url,
        double.url,
        world.now.isoformat(),
    )
    child = await asyncio.to_thread(subprocess.run, words, check=False)
    assert child.returncode == -9
    assert await charged(double) == (1, 3100)
    await world.check()
    assert (await world.invoices())[0].state is InvoiceState.FINALIZED
    world.now += LEASE
    assert await world.collect(stripe) == 1
    assert await charged(double) == (1, 3100)
    assert (await world.invoices())[0].state is InvoiceState.PAID


async def test_a_webhook_that_comes_before_our_own_answer_is_enough(
    world: World, double: Double, stripe: StripeProcessor, told: Callable[[Webhook], Any]
) -> None:
    """It finds the payment by its name; the answer then changes nothing."""
    double.answer = told
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")

    class Late(Broken):
        async def charge(self, order: Any) -> Any:
            result = await self._real.charge(order)
            await told_all(double)
            return result

    assert await world.collect(Late(stripe)) == 1
    assert await charged(double) == (1, 3100)
    assert await world.fetch("SELECT count(*) FROM ledger_transfer WHERE kind = 'payment_received'") == [(1,)]


async def test_a_declined_card_is_tried_four_times_and_then_paid_by_wire(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """After 1, 3 and 5 days; then the operator marks what the bank shows."""
    await world.customer("ada", stripe=("cus_ada", "pm_card_chargeDeclinedInsufficientFunds"))
    await world.subscribe("ada", "team")
    for days in (1, 3, 5):
        assert await world.collect(stripe) == 1
        world.advance(days=days, seconds=-1)
        assert await world.collect(stripe) == 0
        world.advance(seconds=1)
    assert await world.collect(stripe) == 1
    (failed,) = await world.payments()
    assert (failed.state, failed.attempt, failed.failure_code) == (PaymentState.FAILED, 4, "insufficient_funds")
    world.advance(days=30)
    assert await world.collect(stripe) == 0
    assert (await double.summary())["intents"] == 4
    (invoice,) = [one for one in await world.invoices() if one.reason == "activation"]
    paid = await world.receive(invoice)
    assert (paid.state, paid.payment_id != failed.payment_id) == (PaymentState.SUCCEEDED, True)


async def test_webhooks_in_any_order_and_of_others_change_nothing_they_should_not(
    world: World, double: Double, stripe: StripeProcessor, told: Callable[[Webhook], Any]
) -> None:
    """Held back and told backwards; told again; forged; of an intent that is not ours."""
    await world.customer("ada", stripe=("cus_ada", "pm_card_chargeDeclined"))
    await world.subscribe("ada", "team")
    await double.fault("hold_webhook", times=9)
    await world.collect(stripe)
    await world.execute("UPDATE customer SET stripe_payment_method = 'pm_card_visa'")
    world.advance(days=1)
    await world.collect(stripe)
    (paid,) = await world.payments()
    assert (paid.state, paid.attempt) == (PaymentState.SUCCEEDED, 2)
    await double.clear()
    await told_all(double)
    assert len(double.heard) == 4
    for webhook in [*double.heard, *double.heard]:
        assert not await apply_webhook(world.db, stripe, webhook=webhook, now=world.now)
    assert await world.payments() == [paid]
    assert await world.fetch("SELECT count(*) FROM webhook_event") == [(4,)]
    forged = Webhook(payload=double.heard[0].payload + b" ", signature=double.heard[0].signature)
    with pytest.raises(Unauthenticated):
        await apply_webhook(world.db, stripe, webhook=forged, now=world.now)
    double.answer = told
    form = {"amount": "500", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true"}
    headers = {"Authorization": "Bearer sk_other"}
    async with double.client.post(f"{double.url}/v1/payment_intents", data=form, headers=headers) as answer:
        assert answer.status == 200
    await told_all(double)
    assert await world.payments() == [paid]


async def test_a_bank_debit_takes_days_and_is_seen_by_webhook_or_by_looking(
    world: World, double: Double, stripe: StripeProcessor, told: Callable[[Webhook], Any]
) -> None:
    """Processing is no success; one ends by webhook, the other when it is looked at."""
    for name in ("ada", "bob"):
        await world.customer(name, stripe=(f"cus_{name}", "pm_usBankAccount_success"))
        await world.subscribe(name, "team")
    assert await world.collect(stripe) == 2
    pending = await world.payments()
    assert {payment.state for payment in pending} == {PaymentState.PROCESSING}
    with pytest.raises(Conflict, match="is processing cannot be received"):
        await world.receive((await world.invoices("ada"))[0])
    with pytest.raises(Conflict, match="a payment of it is processing"):
        await world.void((await world.invoices("ada"))[0])
    await told_all(double)
    double.answer = told
    await double.settle(pending[0].processor_id)
    await told_all(double)
    states = [payment.state for payment in await world.payments()]
    assert states == [PaymentState.SUCCEEDED, PaymentState.PROCESSING]
    await double.fault("hold_webhook", "settle")
    await double.settle(pending[1].processor_id)
    world.advance(hours=6)
    assert await world.collect(stripe) == 1
    assert await charged(double) == (2, 6200)
    assert {payment.state for payment in await world.payments()} == {PaymentState.SUCCEEDED}


async def test_a_wire_is_marked_once_and_another_one_is_refused(world: World) -> None:
    """The same reference again changes nothing; a second one says what was there."""
    await world.customer("ada")
    await world.subscribe("ada", "team")
    (invoice,) = await world.invoices()
    first = await world.receive(invoice, "ach", "TRACE-7")
    assert await world.receive(invoice, "ach", "TRACE-7") == first
    with pytest.raises(Conflict, match="already paid by ach 'TRACE-7'"):
        await world.receive(invoice, "ach", "TRACE-8")
    with pytest.raises(InvalidInput):
        await world.receive(invoice, "stripe", "TRACE-7")
    with pytest.raises(Conflict, match="is paid cannot be voided"):
        await world.void(invoice)
    assert await world.fetch("SELECT count(*) FROM ledger_transfer WHERE kind = 'payment_received'") == [(1,)]


async def test_a_void_invoice_takes_no_money(world: World) -> None:
    """Neither by hand nor by the cycle."""
    await world.customer("ada", stripe=VISA)
    await world.subscribe("ada", "team")
    (invoice,) = await world.invoices()
    await world.void(invoice)
    with pytest.raises(Conflict, match="is void cannot be paid"):
        await world.receive(invoice)
    assert await world.collect(None) == 0


async def test_many_due_payments_are_charged_once_by_two_workers(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """Forty customers, two collectors at once."""
    for n in range(40):
        await world.customer(f"c{n}", stripe=(f"cus_{n}", "pm_card_visa"))
        await world.subscribe(f"c{n}", "team")
    done = await asyncio.gather(world.collect(stripe), world.collect(stripe))
    assert sum(done) == 40
    assert await charged(double) == (40, 40 * 3100)


async def test_a_top_up_by_card_gives_credit_at_once_and_once(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """The same request again is the same payment; another amount under its key is refused."""
    await world.customer("ada", stripe=VISA)
    first = await world.top_up("ada", 2500, "stripe", processor=stripe, request_key="r1")
    again = await world.top_up("ada", 2500, "stripe", processor=stripe, request_key="r1")
    assert first == again
    assert first.grant_id is not None
    assert await charged(double) == (1, 2500)
    assert await world.books() == {"cash": 25 * NANO, "contract_liability": -25 * NANO}
    with pytest.raises(IdempotencyConflict):
        await world.top_up("ada", 2600, "stripe", processor=stripe, request_key="r1")


@pytest.mark.parametrize("fault", ["lose_answer", "lose_request", "fail_after"])
async def test_a_top_up_whose_outcome_is_unknown_is_resumed(
    world: World, double: Double, stripe: StripeProcessor, fault: str
) -> None:
    """By the same request, or by the cycle; one charge and one grant come of it."""
    await world.customer("ada", stripe=VISA)
    await double.fault(fault)
    first = await world.top_up("ada", 2500, "stripe", processor=stripe, request_key="r1")
    assert (first.payment.state, first.grant_id) == (PaymentState.PROCESSING, None)
    again = await world.top_up("ada", 2500, "stripe", processor=stripe, request_key="r1")
    assert again.grant_id is not None
    await double.fault(fault)
    second = await world.top_up("ada", 700, "stripe", processor=stripe, request_key="r2")
    assert second.grant_id is None
    world.now += LEASE
    assert await world.collect(stripe) == 1
    assert await charged(double) == (2, 3200)
    assert await world.fetch("SELECT sum(amount_nanos)::bigint, count(*) FROM credit_grant") == [(32 * NANO, 2)]


async def test_a_declined_top_up_has_failed_and_gives_nothing(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """It is not tried again behind the customer's back."""
    await world.customer("ada", stripe=("cus_ada", "pm_card_chargeDeclined"))
    done = await world.top_up("ada", 2500, "stripe", processor=stripe)
    assert (done.payment.state, done.payment.failure_code) == (PaymentState.FAILED, "generic_decline")
    assert done.grant_id is None
    world.advance(days=30)
    assert await world.collect(stripe) == 0
    assert await world.books() == {}


async def test_a_top_up_that_could_not_be_granted_moves_no_money(
    world: World, double: Double, stripe: StripeProcessor
) -> None:
    """Too much for a wallet, expired already, no card, nothing at all: refused before Stripe is asked."""
    await world.customer("ada", stripe=VISA)
    await world.customer("bob")
    with pytest.raises(InvalidInput, match="2\\^53"):
        await world.top_up("ada", 1_000_000_000, "stripe", processor=stripe)
    await world.top_up("ada", 900_000_000, "wire", reference="FT-9")
    with pytest.raises(Unprocessable, match="would hold more"):
        await world.top_up("ada", 90_000_000, "stripe", processor=stripe)
    past = TopUp(expires_at=world.now - timedelta(days=1))
    with pytest.raises(InvalidInput) as expired:
        await world.top_up("ada", 2500, "stripe", processor=stripe, top_up=past)
    assert expired.value.field == "expires_at"
    with pytest.raises(Unprocessable, match="no payment method"):
        await world.top_up("bob", 2500, "stripe", processor=stripe)
    with pytest.raises(InvalidInput, match="above zero"):
        await world.top_up("ada", 0, "wire")
    assert (await double.summary())["intents"] == 0
    assert len(await world.payments()) == 1
