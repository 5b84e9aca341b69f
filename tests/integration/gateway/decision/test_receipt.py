"""Decisions that can be proved later, offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.receipt import new_key, verify

COMMAND = (sys.executable, "-c", "from gateway.command.main import main; main()")


@pytest.fixture
async def signing(world: Any, settings: Any, open_gateway: Any, tmp_path: Path) -> Any:
    """A gateway with a key to sign with."""
    file = tmp_path / "receipt.pem"
    file.write_bytes(new_key())
    _, call = await open_gateway(msgspec.structs.replace(settings, receipt_key_file=str(file)))
    return call


async def keys_of(call: Any) -> bytes:
    async with call.session.get(call.url + "/.well-known/jwks.json") as response:
        assert response.headers["Content-Type"] == "application/jwk-set+json"
        return await response.read()


async def test_a_receipt_says_what_the_answer_says(signing: Any, world: Any) -> None:
    """Allowed or refused, by the numbers of the decision."""
    await world.grant(150)
    keys, body = await keys_of(signing), {"key": world.key, "feature": "tokens", "receipt": True}
    for allowed in (True, False):
        _, answer, _ = await signing("/v1/check", body)
        receipt = verify(answer["receipt"], keys)
        assert receipt.allowed == answer["allowed"] == allowed
        assert receipt.decision_id == answer["decision_id"]
        assert (receipt.reason, receipt.tenant, receipt.customer) == (answer["reason"], "t1", "acme")
        assert (receipt.cost_nanos, receipt.balance_nanos, receipt.currency) == (100, 50, "USD")
        assert [(one.feature, one.quantity) for one in receipt.charges] == [("tokens", 1)]
        assert receipt.at_ms > 0


async def test_a_batch_signs_what_is_asked_for(signing: Any, world: Any) -> None:
    """Check by check; nobody's decision has no receipt."""
    check = {"key": world.key, "feature": "calls"}
    checks = [check, check | {"receipt": True}, {"key": "tgk_nobody", "feature": "calls", "receipt": True}]
    _, body, _ = await signing("/v1/check/batch", {"checks": checks})
    assert ["receipt" in answer for answer in body["answers"]] == [False, True, False]


async def test_without_a_key_a_receipt_is_refused_before_anything_is_charged(
    call: Any, world: Any, unchanged: Any
) -> None:
    """And there are no public keys to tell."""
    async with unchanged():
        body = {"key": world.key, "feature": "calls", "receipt": True}
        status, problem, _ = await call("/v1/check", body)
        assert (status, problem["field"]) == (422, "receipt")
        status, problem, _ = await call("/v1/check/batch", {"checks": [body]})
        assert (status, problem["field"]) == (422, "checks[0].receipt")
    assert await keys_of(call) == b'{"keys":[]}'


def verified(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, "receipt", "verify", *words], capture_output=True, text=True, check=False)


async def test_the_command_verifies_offline_a_receipt_or_the_whole_answer(
    signing: Any, world: Any, tmp_path: Path
) -> None:
    """What was changed is told as such, with status 1."""
    keys, answer, receipt = tmp_path / "keys.json", tmp_path / "answer.json", tmp_path / "receipt.txt"
    keys.write_bytes(await keys_of(signing))
    _, body, _ = await signing("/v1/check", {"key": world.key, "feature": "calls", "receipt": True})
    answer.write_bytes(msgspec.json.encode(body))
    receipt.write_text(body["receipt"] + "\n")
    nowhere = ("--gateway-url", "http://127.0.0.1:9")
    for file in (answer, receipt):
        said = verified(str(file), "--jwks", str(keys), *nowhere)
        assert (said.returncode, said.stderr) == (0, "")
        assert body["decision_id"] in said.stdout
    said = verified(str(receipt), "--jwks", str(keys), "--json", *nowhere)
    assert msgspec.json.decode(said.stdout)["decision_id"] == body["decision_id"]
    receipt.write_text(body["receipt"][:-8] + "AAAAAAAA")
    said = verified(str(receipt), "--jwks", str(keys), *nowhere)
    assert (said.returncode, said.stdout) == (1, "")
    assert "no key of the set has signed this receipt" in said.stderr
