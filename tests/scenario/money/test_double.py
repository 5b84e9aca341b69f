"""The double is Stripe where it matters: idempotency, refusals by Stripe's own types, signed webhooks, memory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.scenario.money.conftest import Double

INTENT = {
    "amount": "1000",
    "currency": "usd",
    "customer": "cus_ada",
    "payment_method": "pm_card_visa",
    "confirm": "true",
    "metadata[order]": "6",
}


async def post(double: Double, path: str, form: dict[str, str], *, key: str = "") -> tuple[int, Any, bool]:
    headers = {"Authorization": "Bearer sk_test"} | ({"Idempotency-Key": key} if key else {})
    async with double.client.post(double.url + path, data=form, headers=headers) as answer:
        return answer.status, await answer.json(), "Idempotent-Replayed" in answer.headers


async def get(double: Double, path: str) -> tuple[int, Any]:
    async with double.client.get(double.url + path, headers={"Authorization": "Bearer sk_test"}) as answer:
        return answer.status, await answer.json()


async def test_one_key_runs_once_and_other_words_under_it_are_refused(double: Double) -> None:
    """The same answer again, marked; 400 idempotency_error for other parameters; declines are replayed too."""
    first = await post(double, "/v1/payment_intents", INTENT, key="k1")
    again = await post(double, "/v1/payment_intents", INTENT, key="k1")
    assert (first[0], first[2], again[2]) == (200, False, True)
    assert first[1] == again[1]
    status, body, _ = await post(double, "/v1/payment_intents", INTENT | {"amount": "2000"}, key="k1")
    assert (status, body["error"]["type"]) == (400, "idempotency_error")
    declined = INTENT | {"payment_method": "pm_card_chargeDeclined"}
    refused = [await post(double, "/v1/payment_intents", declined, key="k2") for _ in range(2)]
    assert [one[0] for one in refused] == [402, 402]
    assert refused[0][1] == refused[1][1]
    assert (await double.summary())["intents"] == 2


async def test_a_500_is_kept_under_its_key_and_a_failed_check_is_not(double: Double) -> None:
    """What began keeps its answer; what never began may be mended and sent again."""
    await double.fault("fail_after")
    for _ in range(2):
        assert (await post(double, "/v1/payment_intents", INTENT, key="k1"))[0] == 500
    assert await double.summary() | {"webhooks_waiting": 0} == {
        "intents": 1,
        "succeeded": 1,
        "received": 1000,
        "webhooks_waiting": 0,
    }
    assert (await post(double, "/v1/payment_intents", INTENT | {"bogus": "1"}, key="k2"))[0] == 400
    assert (await post(double, "/v1/payment_intents", INTENT, key="k2"))[0] == 200


async def test_a_key_that_is_in_use_is_refused_with_409(double: Double) -> None:
    """Two at once: one runs, the other is told."""
    await double.fault("slow", delay_ms=300)
    both = await asyncio.gather(*(post(double, "/v1/payment_intents", INTENT, key="k1") for _ in range(2)))
    assert sorted(one[0] for one in both) == [200, 409]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"bogus": "1"}, "parameter_unknown", "bogus"),
        ({"automatic_payment_methods[on]": "1"}, "parameter_unknown", "automatic_payment_methods[on]"),
        ({"amount": None}, "parameter_missing", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
        ({"amount": "ten"}, "parameter_invalid_integer", "amount"),
        ({"amount": "10.5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "49"}, "amount_too_small", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"payment_method": "pm_nobody"}, "resource_missing", "payment_method"),
        ({"payment_method": None}, "parameter_missing", "payment_method"),
    ],
)
async def test_what_stripes_types_do_not_allow_is_refused_by_name(
    double: Double, change: dict[str, str | None], code: str, param: str
) -> None:
    """Unknown, missing and ill-typed parameters, as `stripe.params` has them."""
    form = {name: value for name, value in (INTENT | change).items() if value is not None}
    status, body, _ = await post(double, "/v1/payment_intents", form)
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, code, param)
    assert (await double.summary())["intents"] == 0


async def test_intents_are_confirmed_canceled_read_and_listed_in_pages(double: Double) -> None:
    """Paid ones cannot be canceled; a page says whether there is more."""
    waiting = {name: value for name, value in INTENT.items() if name != "confirm"}
    names: list[str] = [(await post(double, "/v1/payment_intents", waiting))[1]["id"] for _ in range(3)]
    assert (await post(double, f"/v1/payment_intents/{names[0]}/confirm", {}))[1]["status"] == "succeeded"
    status, body, _ = await post(double, f"/v1/payment_intents/{names[0]}/cancel", {})
    assert (status, body["error"]["code"]) == (400, "payment_intent_unexpected_state")
    assert (await post(double, f"/v1/payment_intents/{names[1]}/cancel", {}))[1]["status"] == "canceled"
    assert (await get(double, f"/v1/payment_intents/{names[2]}"))[1]["metadata"] == {"order": "6"}
    assert (await get(double, "/v1/payment_intents/pi_nobody"))[0] == 404
    _, page = await get(double, "/v1/payment_intents?customer=cus_ada&limit=2")
    assert ([one["id"] for one in page["data"]], page["has_more"]) == (names[:0:-1], True)
    _, rest = await get(double, f"/v1/payment_intents?limit=2&starting_after={names[1]}")
    assert ([one["id"] for one in rest["data"]], rest["has_more"]) == (names[:1], False)


async def test_a_killed_double_remembers_everything_it_answered(double: Double) -> None:
    """kill -9, a torn last line, and it knows its customers, intents and keys."""
    _, customer, _ = await post(double, "/v1/customers", {"name": "Ada"})
    attached = await post(double, "/v1/payment_methods/pm_card_chargeDeclined/attach", {"customer": customer["id"]})
    first = await post(double, "/v1/payment_intents", INTENT, key="k1")
    double.kill()
    with double.journal.open("ab") as journal:
        journal.write(b'[{"kind":"payment_intent","id":"pi_torn","val')
    await double.start()
    assert (await post(double, "/v1/payment_intents", INTENT, key="k1"))[1] == first[1]
    assert (await get(double, f"/v1/customers/{customer['id']}"))[1]["name"] == "Ada"
    owned = INTENT | {"customer": customer["id"], "payment_method": attached[1]["id"]}
    assert (await post(double, "/v1/payment_intents", owned))[0] == 402
    double.kill()
    await double.start()
    assert (await double.summary())["intents"] == 2


async def test_a_webhook_is_sent_until_it_is_taken_even_across_a_restart(double: Double) -> None:
    """503 twice, a kill, and it still arrives."""
    refused: list[object] = []

    async def refuse(webhook: object) -> int:
        refused.append(webhook)
        return 503

    taking, double.answer = double.answer, refuse
    await post(double, "/v1/payment_intents", INTENT)

    async def is_refused_twice() -> bool:
        return len(refused) >= 2

    from_here = double.heard
    await asyncio.wait_for(_until(is_refused_twice), 20)
    double.kill()
    double.answer = taking
    await double.start()
    await asyncio.wait_for(_until(double.is_told), 20)
    kinds = sorted(webhook.payload.split(b'"type":"')[1].split(b'"')[0].decode() for webhook in from_here)
    assert set(kinds) == {"payment_intent.created", "payment_intent.succeeded"}


async def _until(holds: Any) -> None:
    while not await holds():  # noqa: ASYNC110 - what is asked for happens in another process
        await asyncio.sleep(0)
