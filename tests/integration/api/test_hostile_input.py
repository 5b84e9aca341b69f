"""Junk at every door: each route is asked with what no honest caller sends.

Whatever comes in, the answer is below 500, tells itself as a problem, and where everything was refused not a row of
the database has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from yarl import URL

from billing_core.api.app import ROUTES
from billing_core.api.route import Access, AnyRoute

if TYPE_CHECKING:
    from tests.integration.api.conftest import Answer, Caller, Plane

NAMES = (
    "unknown",
    "%00",
    "%FF",
    "..%2F..",
    "%F0%9F%92%A5",
    "'%20OR%201=1--",
    "a" * 300,
    "-1",
    "{}",
    "%2e%2e",
    "a:b",
    "%0d%0aX:y",
)
QUERIES = (
    "surprise=1",
    "cursor=%00",
    "cursor=%FF",
    "cursor=bm9uc2Vuc2U",
    "cursor=" + "A" * 5000,
    "limit=0",
    "limit=-1",
    "limit=1.5",
    "limit=99999999999999999999999999",
    "limit=NaN",
    "limit=1&limit=2",
    "customer_id=%00",
    "state=%F0%9F%92%A5",
    "from=0001-01-01T00:00:00%2B14:00",
    "to=9999-12-31T23:59:59-14:00",
    "from=2026-01-01",
    "from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z",
    "meter=%00",
    "group_by=%00",
    "%00=1",
    "%FF=%FE",
    "=",
)
DEEP = b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
BODIES = (
    b"not json",
    b"{",
    b"[]",
    b"null",
    b"1e400",
    b'"text"',
    b"\xff\xfe{",
    b'{"customer_id":"\xff"}',
    b'{"surprise":1}',
    b'{"\\u0000":1}',
    b"{}{}",
    b"\x00",
    DEEP,
    b"[" * 30_000,
    b'{"label":' + b'"' + b"x" * 60_000 + b'"}',
    b'{"name":"a\\u0000b","customer_id":"c"}',
    b'{"amount":"-1"}',
    b'{"amount":"1e9","kind":"promotional"}',
    b'{"amount":9007199254740992}',
    b'{"amount":1.5}',
    b'{"amount":"9007199.254740992"}',
    b'{"amount":"\xd9\xa1"}',
    b'{"customer_id":"x","plan":"y","start_at":"0001-01-01T00:00:00+14:00"}',
    b'{"to":"9999-12-31T23:59:59-14:00"}',
    b'{"to":"2026-01-01T00:00:00"}',
    b'{"to":1e300}',
    b'{"label":"\\ud800"}',
    b'{"payment_terms_days":99999999999999999999,"customer_id":"c"}',
    b'{"plans":[{"code":"p","currency":"USD","prices":[{"code":"x","meter":"m","model":"graduated","tiers":[]}]}]}',
    b'{"plans":[{"code":"p","currency":"USD","fee_amount":"1e999999999"}]}',
    b'{"meters":[{"code":"m","event":"m","aggregation":"sum","field":"f","scale":-99999999999999999999}]}',
)
HEADERS: tuple[dict[str, str], ...] = (
    {"Content-Encoding": "gzip"},
    {"Content-Encoding": "deflate"},
    {"Content-Encoding": "nonsense"},
    {"Content-Type": "text/plain; charset=nonsense"},
    {"Idempotency-Key": ""},
    {"Idempotency-Key": "x" * 300},
    {"Accept": "text/nothing"},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer " + "x" * 4000},
    {"Authorization": "Basic dGdvOnRnbw=="},
    {"Authorization": "Bearer t\u00e9l\u00e9"},
)


def _url(route: AnyRoute, name: str, query: str = "") -> str:
    path = route.path
    for kind in (
        "tenant_id",
        "token_id",
        "customer_id",
        "key_id",
        "entitlement_id",
        "addon",
        "grant_id",
        "subscription_id",
        "invoice_id",
        "line_no",
        "payment_id",
    ):
        path = path.replace("{" + kind + "}", name)
    return path.replace("{currency}", name if name != "unknown" else "USD") + (f"?{query}" if query else "")


def _who(plane: Plane, route: AnyRoute) -> Caller:
    return {Access.ROOT: plane.root, Access.OPERATOR: plane.ours, Access.PUBLIC: plane.nobody}[route.access]


def _check(answer: Answer, asked: object) -> bool:
    """Whether it was refused, properly."""
    assert answer.status < 500, (asked, answer.raw)
    if answer.status < 400:
        return False
    assert answer.headers["Content-Type"] == "application/problem+json", (asked, answer.raw)
    problem = answer.body
    assert problem["status"] == answer.status, asked
    assert problem["detail"], asked
    assert problem["code"], asked
    assert problem["type"] == f"urn:tallygate:problem:{problem['code']}"
    return True


async def _all_refused(
    plane: Plane, route: AnyRoute, answers: list[tuple[object, Answer]], before: dict[str, int]
) -> None:
    refused = [_check(answer, asked) for asked, answer in answers]
    if all(refused):
        assert await plane.count() == before, route.path


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_junk_is_refused_by_every_route(plane: Plane, route: AnyRoute) -> None:
    """In the path, the query string, the body and the headers."""
    caller = _who(plane, route)
    before = await plane.count()
    answers: list[tuple[object, Answer]] = []
    for name in NAMES:
        if "{" in route.path:
            url = URL(_url(route, name), encoded=True)
            answers.append(
                (name, await caller.ask(route.method, str(url), raw=b"{}", headers={"Idempotency-Key": "n"}))
            )
    await _all_refused(plane, route, answers, before)
    for query in QUERIES:
        answer = await caller.ask(route.method, _url(route, "unknown", query), raw=b"{}")
        _check(answer, query)
    if route.method in {"POST", "PUT"}:
        before = await plane.count()
        answers = []
        for number, body in enumerate(BODIES):
            headers = {"Idempotency-Key": f"b{number}"}
            answers.append(
                (body[:60], await caller.ask(route.method, _url(route, "unknown"), raw=body, headers=headers))
            )
        await _all_refused(plane, route, answers, before)
    for headers in HEADERS:
        _check(await caller.ask(route.method, _url(route, "unknown"), raw=b"{}", headers=headers), headers)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_without_a_credential_nobody_learns_or_does_anything(plane: Plane, route: AnyRoute) -> None:
    """The credential is looked at before anything else."""
    if route.access is Access.PUBLIC:
        return
    before = await plane.count()
    for caller in (plane.nobody, plane.caller("tgo_made-up")):
        answer = await caller.ask(route.method, _url(route, "unknown"), raw=b"junk")
        assert (answer.status, answer.body["code"]) == (401, "unauthenticated")
    wrong = plane.ours if route.access is Access.ROOT else plane.root
    assert (await wrong.ask(route.method, _url(route, "unknown"), raw=b"junk")).status == 403
    assert await plane.count() == before


async def test_what_no_route_knows_is_a_problem_too(plane: Plane) -> None:
    """An unknown path, another method, a body above the bound, a packed body."""
    assert _check(await plane.ours.get("/v1/nothing"), "path")
    other = await plane.ours.delete("/v1/catalog")
    assert (other.status, other.body["code"], other.headers["Allow"]) == (405, "method_not_allowed", "GET,PUT")
    big = await plane.ours.ask("POST", "/v1/customers", raw=b'{"customer_id":"' + b"x" * 70_000 + b'"}')
    assert (big.status, big.body["code"], big.body["field"]) == (413, "too_large", "body")
    junk = await plane.ours.ask("POST", "/v1/customers", raw=b"{}", headers={"Content-Encoding": "gzip"})
    assert (junk.status, junk.body["code"]) == (415, "unsupported_media_type")
