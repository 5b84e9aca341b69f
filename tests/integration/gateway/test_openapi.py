"""The data plane as it describes itself: a fuzzer that reads the document finds nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing_core.contract.keys import KeyRecord, Role
from gateway.edge.message import JSON
from gateway.edge.route.description import BatchBody, BatchTold, describe
from gateway.edge.route.event import CLOUD_EVENT, CLOUD_EVENTS, NDJSON
from gateway.edge.wire import BatchAnswer, BatchRequest
from tests.fuzzer import findings, printed

EXAMPLES = ("--max-examples", "3")


async def test_the_document_is_served_to_anybody_and_printed(call: Any, tmp_path: Path) -> None:
    """As it is made of the types."""
    document = msgspec.json.decode(describe())
    status, body, headers = await call.get("/openapi.json")
    assert (status, body, headers["Content-Type"]) == (200, document, "application/json")
    assert msgspec.json.decode(await printed("gateway", "--gateway-url", call.url, folder=tmp_path)) == document


@pytest.mark.parametrize("who", ["operator", "caller"])
async def test_a_fuzzer_finds_nothing(call: Any, world: Any, tmp_path: Path, who: str) -> None:
    """As operator and as caller, with an open hold and a filled wallet; a stranger sees nothing of it."""
    await world.grant(1_000_000)
    asked = {"key": world.key, "feature": "tokens", "mode": "hold", "ttl_ms": 600_000}
    _, placed, _ = await call("/v1/check", asked)
    token = world.token if who == "operator" else world.key
    record = KeyRecord(tenant_id="t2", role=Role.OPERATOR)
    if who == "caller":
        record = KeyRecord(tenant_id="t1", role=Role.CALLER, customer_id="other", hint="er")
    await world.credential("tg_stranger", record)
    paths = () if who == "operator" else ("--include-path-regex", "^/v1/(customers|authorize/(forward|envoy))")
    hold_id = placed["hold"]["id"]
    names = {"customer_id": world.customer, "hold_id": hold_id, "hold": hold_id, "feature": "tokens"}
    users = {"token": token, "stranger": "tg_stranger"}
    ended, said = await findings(call.url, *EXAMPLES, *paths, folder=tmp_path, **users, names=names)
    assert ended == 0, said[:20_000]


def test_what_is_described_in_other_types_has_the_same_fields() -> None:
    """A batch is read and answered piece by piece."""
    for told, real in ((BatchBody, BatchRequest), (BatchTold, BatchAnswer)):
        assert told.__struct_fields__ == real.__struct_fields__


def test_all_forms_of_events_and_ways_to_pay_are_described() -> None:
    """For whoever generates a client."""
    paths = msgspec.json.decode(describe())["paths"]
    bodies = paths["/v1/events"]["post"]["requestBody"]["content"]
    assert set(bodies) == {JSON, NDJSON, CLOUD_EVENT, CLOUD_EVENTS}
    refused = {name: paths[f"/v1/authorize/{name}"]["get"]["responses"] for name in ("forward", "nginx")}
    told = {"forward": refused["forward"]["402"], "nginx": refused["nginx"]["403"]}
    for one in told.values():
        assert {"RateLimit", "Retry-After", "Link", "PAYMENT-REQUIRED"} <= set(one["headers"])
    assert "PAYMENT-REQUIRED" not in refused["forward"]["429"]["headers"]
