"""Every route stands in its plane's document, and nothing else does."""

from __future__ import annotations

import re

import msgspec
import pytest

from billing_core.api import description as control
from billing_core.api.app import ROUTES
from billing_core.api.probe import PROBES
from billing_core.contract.openapi.document import OPENAPI_PATH
from gateway.edge.route import description as data
from gateway.edge.worker import Worker
from gateway.settings import GatewaySettings

DOCUMENTS = {"data": data.describe(), "control": control.describe(ROUTES)}
WORDS = re.compile(r"^[a-z]+(_[a-z]+)*$")


def operations(plane: str) -> dict[tuple[str, str], dict[str, object]]:
    """The operations of a document, by method and path without the names of its variables."""
    paths = msgspec.json.decode(DOCUMENTS[plane], type=dict[str, object])["paths"]
    return {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path)): told
        for path, methods in msgspec.convert(paths, dict[str, dict[str, dict[str, object]]]).items()
        for method, told in methods.items()
    }


def template(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)


async def test_every_route_of_the_data_plane_stands_in_its_document() -> None:
    """A route that answers to any method stands there once, as GET."""
    routes = Worker(GatewaySettings()).routes()
    served = {("GET" if route.method == "*" else route.method, template(route.path)) for route in routes}
    assert set(operations("data")) == served


def test_every_route_of_the_control_plane_stands_in_its_document() -> None:
    """And its probes, and the document itself."""
    served = {(route.method, template(route.path)) for route in ROUTES}
    served |= {("GET", probe.path) for probe in PROBES} | {("GET", OPENAPI_PATH)}
    assert set(operations("control")) == served


@pytest.mark.parametrize("plane", DOCUMENTS)
def test_operations_have_names_and_say_what_they_do(plane: str) -> None:
    """Each its own name, from which clients in other languages make theirs."""
    told = list(operations(plane).values())
    names = [str(one["operationId"]) for one in told]
    assert len(set(names)) == len(names)
    assert [name for name in names if not WORDS.match(name)] == []
    assert [one["operationId"] for one in told if not one["summary"]] == []


@pytest.mark.parametrize("plane", DOCUMENTS)
def test_every_reference_leads_somewhere_and_every_schema_is_used(plane: str) -> None:
    """Names are readable, and patterns are of the dialect of JSON Schema."""
    text = DOCUMENTS[plane].decode()
    document = msgspec.json.decode(text)
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert used == set(document["components"]["schemas"])
    assert [name for name in used if not re.fullmatch(r"[A-Za-z]+", name)] == []
    assert r"\\Z" not in text
    assert document["openapi"] == "3.1.1"
