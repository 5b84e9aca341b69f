"""A whole house in which Redis hangs: what was set aside is served, gateways are killed, and nothing is lost."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from billing_core.contract.shipped import shipped

LEASED = 50
PATIENCE_S = 60


def until(holds: Callable[[], object]) -> Any:
    """Ask again and again, until there is an answer."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        answer = holds()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("it never was so")


def ask(up: Any, *words: str) -> Any:
    ended = up.run(*words, "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def shop(up: Any, folder: Path) -> tuple[str, str]:
    """A tenant whose plan lets input tokens go on without Redis, and a customer with credit: token and key."""
    catalog = folder / "catalog.toml"
    terms = f'feature = "input_tokens"\non_outage = "allow"\noutage_units = {LEASED}\n'
    plain = '[[plans.entitlements]]\nfeature = "input_tokens"\n'
    text = shipped("catalogs/language_model.toml").read_text("utf-8")
    assert plain in text
    catalog.write_text(text.replace(plain, f"[[plans.entitlements]]\n{terms}", 1))
    token = ask(up, "tenants", "create", "outlived")["operator_token"]
    ask(up, "catalog", "apply", str(catalog), "--token", token)
    ask(up, "customers", "create", "acme", "--token", token)
    ask(up, "subscriptions", "create", "acme", "pay-as-you-go", "--token", token)
    ask(up, "wallets", "grant", "acme", "10.00", "--token", token)
    return token, ask(up, "keys", "create", "acme", "--token", token)["key"]


def test_a_hung_redis_and_a_killed_gateway_cost_nobody_anything(running_up: Any, tmp_path: Path) -> None:
    """Each answer that was given is in the books once; the difference between wallets and books is zero."""
    up = running_up
    token, key = shop(up, tmp_path)

    gateway = json.loads((up.folder / "addresses.json").read_text())["gateway_url"]

    def check(number: int) -> Any:
        body = {"key": key, "feature": "input_tokens", "idempotency_key": f"k{number}", "deadline_ms": 1_000}
        typed = {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{gateway}/v1/check", json.dumps(body).encode(), typed)
        try:
            with urllib.request.urlopen(asked) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            refused.close()
            if refused.code != http.client.SERVICE_UNAVAILABLE:
                raise
            return None

    def lessees() -> int:
        with urllib.request.urlopen(f"{gateway}/metrics") as page:
            lines = [line.split() for line in page.read().decode().splitlines()]
        return sum(line[0].startswith("tallygate_leased_units") and float(line[1]) > 0 for line in lines)

    numbers = itertools.count()

    def warm() -> bool:
        """Each is asked until it is answered: what ran unseen is so found again."""
        number = next(numbers)
        allowed.append(until(lambda: check(number)))
        return lessees() == len(up.workers("gateway.edge"))

    allowed: list[Any] = []
    until(warm)
    (server,) = [one for one in psutil.Process(up._process.pid).children() if "valkey-server" in one.name()]
    os.kill(server.pid, signal.SIGSTOP)
    try:
        answers = [check(next(numbers)) for _ in range(10)]
        for worker in up.workers("gateway.edge"):
            worker.kill()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert all(answer["degraded"] for answer in answers)
    allowed += answers
    usage = ("usage", "acme", "--meter", "input_tokens", "--token", token)
    count = len({answer["decision_id"] for answer in allowed})
    until(lambda: sum(int(one["quantity"]) for one in ask(up, *usage)["items"]) >= count)
    assert sum(int(one["quantity"]) for one in ask(up, *usage)["items"]) == count
    assert ask(up, "reconcile", "--token", token)["difference_nanos"] == 0
