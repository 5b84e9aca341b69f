"""The main job, end to end on real servers: requests in, recognized revenue out, and not a nano between."""

from __future__ import annotations

import csv
import json
from typing import Any

from billing_core.contract.shipped import shipped


def test_the_sample_becomes_revenue_that_is_proved_to_the_nano(running_up: Any) -> None:
    """Three hundred requests of eight customers, from the gate to the books, in one command."""
    ended = running_up.run("replay", "--json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert report["settled"] == report["requests"] == 300
    assert [finding for finding in report["findings"] if finding["expected"] != finding["found"]] == []
    with shipped("samples/llm_requests.csv").open(encoding="utf-8") as sample:
        tokens = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(sample)]
    assert sum(one["input_units"] for one in report["accounts"]) == sum(pair[0] for pair in tokens)
    assert sum(one["output_units"] for one in report["accounts"]) == sum(pair[1] for pair in tokens)
    exact = sum(2_500 * pair[0] + 10_000 * pair[1] for pair in tokens)
    assert sum(one["revenue_usage_nanos"] for one in report["accounts"]) == exact
    assert {one["state"] for one in report["accounts"]} == {"paid"}
    assert report["books"]["accounts"]["revenue_usage"] == -exact
    assert (report["books"]["reconcile_nanos"], report["books"]["reconcile_findings"]) == (0, 0)
    _drill_down(running_up, report["operator_token"])


def _drill_down(up: Any, token: str) -> None:
    """From the books to a bill, to its line, to the events, and the bill again from these."""

    def ask(*words: str) -> Any:
        ended = up.run(*words, "--json", "--token", token)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return json.loads(ended.stdout)

    bills = ask("invoices", "list", "--customer", "customer-01")["items"]
    period = next(bill for bill in bills if bill["reason"] == "period")
    lines = ask("invoices", "show", period["invoice_id"])["lines"]
    line = next(line for line in lines if line["meter_code"] == "input_tokens")
    events = ask("invoices", "events", period["invoice_id"], str(line["line_no"]), "--limit", "0")["items"]
    assert len(events) == line["event_count"]
    assert sum(int(event["quantity"]) for event in events) == int(line["quantity"])
    assert ask("invoices", "replay", period["invoice_id"])["same"] is True
    assert sum(account["nanos"] for account in ask("ledger", "trial-balance")["accounts"]) == 0
    assert ask("reconcile")["difference_nanos"] == 0
