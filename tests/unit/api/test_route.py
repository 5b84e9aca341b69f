"""The tables of routes hold what a description of the API needs, and nothing that breaks its rules."""

from __future__ import annotations

import re

import msgspec
import pytest

from billing_core.api.app import ROUTES
from billing_core.api.route import Access, AnyRoute, Retry

MONEY_IN = ("/top-ups", "/grants")


def _name(route: AnyRoute) -> str:
    return f"{route.method} {route.path}"


def test_no_two_routes_have_one_name() -> None:
    """The first one would hide the second."""
    assert len({_name(route) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=_name)
def test_a_route_is_described_by_its_types(route: AnyRoute) -> None:
    """JSON Schema can be made of the query string, the body and the answer; each says what it is."""
    schemas, _ = msgspec.json.schema_components([route.query, route.body, route.answer])
    assert len(schemas) == 3
    assert route.summary
    for kind in (route.query, route.body):
        assert kind.__struct_config__.forbid_unknown_fields, kind
    for kind in (route.query, route.body, getattr(route.answer, "__origin__", route.answer)):
        assert kind.__struct_config__.frozen, kind
        assert kind.__doc__, kind
    assert route.act.__doc__


@pytest.mark.parametrize("route", ROUTES, ids=_name)
def test_a_route_keeps_the_conventions(route: AnyRoute) -> None:
    """Only POST and PUT have bodies, a list has a cursor, and what moves money needs a key."""
    assert re.fullmatch(r"(/[a-z0-9-]+|/\{[a-z_]+\})+", route.path)
    if route.method in {"GET", "DELETE"}:
        assert route.body.__struct_fields__ == ()
        assert route.status == 200
    if "next_cursor" in getattr(route.answer, "__origin__", route.answer).__struct_fields__:
        assert {"cursor", "limit"} <= set(route.query.__struct_fields__)
    if route.path.endswith(MONEY_IN):
        assert route.retry is Retry.REQUIRED
    assert (route.access is Access.ROOT) == route.path.startswith("/v1/tenants")
