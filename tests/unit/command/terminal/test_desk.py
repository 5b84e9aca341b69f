"""Commands at a terminal: tables for people, bytes for programs, one line for a fault."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import typer
from typer.testing import CliRunner, Result

from gateway.command.main import app

Answers = dict[tuple[str, str], tuple[int, object]]
Run = Callable[..., Result]


class Asked:
    """What the plane was sent."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.bodies: list[object] = []
        self.keys: list[str | None] = []
        self.media_types: list[str | None] = []


class Plane(BaseHTTPRequestHandler):
    """A plane that says what it was told to say. It stands in for HTTP only; no server of the house is doubled."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[Asked]

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        body = self.rfile.read(length)
        self.asked.bodies.append(json.loads(body) if body else None)
        self.asked.keys.append(self.headers.get("Idempotency-Key"))
        self.asked.media_types.append(self.headers.get("Content-Type"))
        status, said = self.asked.answers[self.command, self.path.partition("?")[0]]
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def asked() -> Asked:
    Plane.asked = Asked()
    return Plane.asked


@pytest.fixture
def run(asked: Asked, tmp_path: Path) -> Iterator[Run]:
    """Run a command against the plane."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Plane)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    tail = ("--url", url, "--gateway-url", url, "--data-dir", str(tmp_path))

    def invoke(*words: str, input: str | None = None, token: str = "tgo_x") -> Result:  # noqa: A002
        return CliRunner().invoke(app, [*words, *tail, "--token", token], input=input)

    yield invoke
    server.shutdown()
    server.server_close()
    thread.join()


CUSTOMER = {"customer_id": "acme", "name": "Acme [Ltd]", "status": "active", "collection": "stripe", "extra": 1}


def test_a_list_is_a_table(run: Run, asked: Asked) -> None:
    """With headings; what looks like markup is text."""
    asked.answers["GET", "/v1/customers"] = (200, {"items": [CUSTOMER], "next_cursor": None})
    result = run("customers", "list")
    assert result.exit_code == 0
    heading, row = result.stdout.splitlines()
    assert heading.split()[:3] == ["Customer", "Name", "Status"]
    assert row.split()[:3] == ["acme", "Acme", "[Ltd]"]


def test_json_is_what_the_plane_said(run: Run, asked: Asked) -> None:
    """With fields that no table shows."""
    asked.answers["GET", "/v1/customers/acme"] = (200, CUSTOMER)
    assert json.loads(run("customers", "show", "acme", "--json").stdout) == CUSTOMER


def test_a_problem_is_one_line_and_status_1(run: Run, asked: Asked) -> None:
    """Field first, then the rule."""
    problem = {"type": "t", "title": "invalid input", "status": 400, "code": "invalid_input"}
    asked.answers["POST", "/v1/customers/acme/wallets/USD/top-ups"] = (
        400,
        problem | {"detail": "must be above zero", "field": "amount"},
    )
    result = run("wallets", "top-up", "acme", "0.00")
    assert (result.exit_code, result.stderr) == (1, "tallygate: amount: must be above zero\n")


def test_without_a_token_it_says_how_to_get_one(run: Run, asked: Asked) -> None:
    """Which option, or which command on this machine."""
    asked.answers["GET", "/v1/clock"] = (401, {})
    result = run("clock", "show", token="")
    assert result.exit_code == 1
    assert "wants a token: start `tallygate up` on this machine, or set --token" in result.stderr


def test_a_write_carries_an_idempotency_key(run: Run, asked: Asked) -> None:
    """A told one, or a fresh one each time."""
    asked.answers["POST", "/v1/customers/acme/keys"] = (201, {"key_id": "key_1", "key": "tgk_secret"})
    assert "tgk_secret" in run("keys", "create", "acme", "--path", "team:ml/project:chat").stdout
    run("keys", "create", "acme", "--idempotency-key", "mine")
    assert asked.bodies == [{"label": "", "path": "team:ml/project:chat"}, {"label": "", "path": ""}]
    assert asked.keys[0] is not None
    assert asked.keys[0].startswith("cli-")
    assert asked.keys[1] == "mine"


def test_a_refused_check_is_status_1(run: Run, asked: Asked) -> None:
    """So that a shell can ask."""
    asked.answers["POST", "/v1/check"] = (
        200,
        {"allowed": False, "reason": "limit_reached", "refused_feature": "sms"},
    )
    result = run("check", "sms=3", "calls", "--customer", "acme")
    assert result.exit_code == 1
    assert "refused: limit_reached sms" in result.stdout
    charges = [{"feature": "sms", "quantity": 3}, {"feature": "calls", "quantity": 1}]
    assert asked.bodies == [{"charges": charges, "customer": "acme"}]


def test_a_quantity_that_is_no_number_is_refused_here(run: Run, asked: Asked) -> None:
    """Nothing is sent."""
    for wrong in ("x", "--3", "=-3", "=", "1.5"):
        result = run("check", f"sms={wrong}", "--customer", "acme")
        assert (result.exit_code, result.stderr) == (1, f"tallygate: sms: {wrong!r} is not a whole number\n")
    assert asked.bodies == []


def test_events_are_sent_in_batches_with_an_answer_each(run: Run, asked: Asked, tmp_path: Path) -> None:
    """One object a line, or an array, or from the standard input."""
    problem = {
        "type": "t",
        "title": "x",
        "status": 400,
        "code": "invalid_input",
        "detail": "unknown",
        "field": "type",
    }
    answers = [{"id": "e1", "status": "accepted"}, {"id": "e2", "status": "rejected", "problem": problem}]
    asked.answers["POST", "/v1/events"] = (207, {"results": answers})
    lines = '{"id": "e1"}\n\n{"id": "e2"}\n'
    (tmp_path / "events.ndjson").write_text(lines)
    for result in (run("events", "send", str(tmp_path / "events.ndjson")), run("events", "send", "-", input=lines)):
        assert result.exit_code == 1
        assert "1 accepted" in result.stdout
        assert [line.split() for line in result.stdout.splitlines()][-1] == ["e2", "type", "unknown"]
    assert asked.bodies == [[{"id": "e1"}, {"id": "e2"}]] * 2


def test_cloud_events_are_sent_as_such(run: Run, asked: Asked, tmp_path: Path) -> None:
    """As a batch, however they stand in the file; all others as events of our own."""
    asked.answers["POST", "/v1/events"] = (200, {"results": [{"id": "/a|e1", "status": "accepted"}]})
    (tmp_path / "events.ndjson").write_text('{"specversion": "1.0"}\n')
    for options in (("--cloudevents",), ()):
        assert run("events", "send", str(tmp_path / "events.ndjson"), *options).exit_code == 0
    assert asked.bodies == [[{"specversion": "1.0"}]] * 2
    assert asked.media_types == ["application/cloudevents-batch+json", "application/json"]


def test_an_event_file_that_is_no_json_names_the_line(run: Run, asked: Asked, tmp_path: Path) -> None:
    """Nothing is sent."""
    (tmp_path / "events.ndjson").write_text('{"id": "e1"}\n{"id": \n')
    result = run("events", "send", str(tmp_path / "events.ndjson"))
    assert result.exit_code == 1
    assert "events.ndjson: line 2: is not a JSON document" in result.stderr
    assert asked.bodies == []


def test_a_catalog_file_travels_as_a_document(run: Run, asked: Asked, tmp_path: Path) -> None:
    """TOML in, JSON out."""
    asked.answers["PUT", "/v1/catalog"] = (200, {"plans": [{"code": "p", "version": 2, "changed": True}]})
    (tmp_path / "c.toml").write_text('[[plans]]\ncode = "p"\n')
    assert [line.split() for line in run("catalog", "apply", str(tmp_path / "c.toml")).stdout.splitlines()] == [
        ["Plan", "Version"],
        ["p", "2", "new"],
    ]
    assert asked.bodies == [{"plans": [{"code": "p"}]}]
    assert "is not a TOML document" in run("catalog", "apply", __file__).stderr


def test_replay_refuses_a_bad_file_before_it_asks_anybody(run: Run, asked: Asked, tmp_path: Path) -> None:
    """Row, column, rule."""
    file = tmp_path / "t.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-01,1,many\n")
    result = run("replay", str(file), "--root-token", "tgr_x")
    assert result.exit_code == 1
    said = "tallygate: t.csv: row 2, column GeneratedTokens: 'many' is not a number; nothing was sent\n"
    assert result.stderr == said
    assert asked.bodies == []


def test_an_entitlement_is_given_in_a_catalogs_words(run: Run, asked: Asked, tmp_path: Path) -> None:
    """From a file and from options; a denial needs no file."""
    asked.answers["POST", "/v1/customers/acme/entitlements"] = (201, {"entitlement_id": "ent_1", "kind": "trial"})
    (tmp_path / "t.toml").write_text('limits = [{ units = 5, interval = "day" }]\n')
    told = ("entitlements", "give", "acme", "calls", "--kind")
    assert "ent_1" in run(*told, "trial", "--terms", str(tmp_path / "t.toml"), "--expires-at", "2026-05-01").stdout
    run(*told, "override", "--deny")
    assert asked.bodies == [
        {
            "kind": "trial",
            "terms": {"feature": "calls", "limits": [{"units": 5, "interval": "day"}]},
            "expires_at": "2026-05-01T00:00:00Z",
        },
        {"kind": "override", "terms": {"feature": "calls", "enabled": False}},
    ]


def test_what_a_customer_may_do_is_shown_with_its_sources(run: Run, asked: Asked) -> None:
    """Bounds in words, then the budgets."""
    month = {"counter": "calls@month", "units": 1000, "ceiling": 1050, "carry_units": 0}
    rate = {"counter": "calls~minute", "units": 60, "burst_units": 10}
    cap = {"counter": "$USD@month", "currency": "USD", "nanos": 5 * 10**9, "ceiling": None}
    asked.answers["GET", "/v1/customers/acme/entitlements/resolved"] = (
        200,
        {
            "customer_id": "acme",
            "features": [
                {
                    "feature": "calls",
                    "kind": "metered",
                    "guard": {"feature": "calls", "limits": [month], "rates": [rate], "concurrent": 3},
                    "sources": [
                        {"source": "plan", "code": "pro", "version": 2},
                        {"source": "addon", "code": "x", "quantity": 3},
                    ],
                }
            ],
            "budgets": [{"node": "team:*", "guards": [{"feature": "calls"}], "spend_caps": [cap]}],
        },
    )
    said = run("entitlements", "show", "acme").stdout
    assert "1,000 a month, refused above 1,050; 60 requests per minute (10 at once); 3 at one time" in said
    assert "plan pro v2, addon x x3" in said
    assert "no bounds" in said
    assert "5.00 USD a month, soft" in said


def test_budgets_add_ons_and_changes_travel_as_they_are_told(run: Run, asked: Asked, tmp_path: Path) -> None:
    """Whole documents, quantities, and an instant."""
    asked.answers["PUT", "/v1/customers/acme/budgets"] = (200, {"customer_id": "acme"})
    asked.answers["PUT", "/v1/subscriptions/sub_1/addons/more"] = (200, {"addon": "more", "quantity": 3})
    change = {"plan_code": "team", "plan_version": 2, "at": "2026-04-01T00:00:00Z"}
    subscription = {"subscription_id": "sub_1", "customer_id": "acme", "change": change}
    asked.answers["POST", "/v1/subscriptions/sub_1/change"] = (200, subscription)
    (tmp_path / "b.toml").write_text(
        '[[nodes]]\nnode = "team:*"\nguards = [{ feature = "calls", concurrent = 1 }]\n'
    )
    run("budgets", "apply", "acme", str(tmp_path / "b.toml"))
    run("addons", "take", "sub_1", "more", "--quantity", "3")
    said = run("subscriptions", "change", "sub_1", "team", "--at", "end").stdout
    assert "team, version 2, from 2026-04-01 00:00" in said
    assert asked.bodies == [
        {"nodes": [{"node": "team:*", "guards": [{"feature": "calls", "concurrent": 1}]}]},
        {"quantity": 3},
        {"plan": "team", "at": "end"},
    ]


def commands(group: typer.Typer, *path: str) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        yield (*path, command.name or "")
    for lower in group.registered_groups:
        assert lower.typer_instance is not None
        yield from commands(lower.typer_instance, *path, str(lower.typer_instance.info.name))


@pytest.mark.parametrize("words", list(commands(app)), ids=" ".join)
def test_every_command_says_what_it_does(words: tuple[str, ...]) -> None:
    """And has help that can be read."""
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout
