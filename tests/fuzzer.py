"""Schemathesis, run against a plane that serves its own OpenAPI document.

All its checks but one: rules between fields, and between a request and what is stored, are no JSON Schema, so data
that fits the schema may be refused. Two bounds of its own are widened: 503 is an answer (to a deadline of a
millisecond, say), and 413 and 207 are ways to say that data does not fit. What proxies ask comes with any method
and with whatever headers a client sent.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

CONFIG = """
hooks = "hooks.py"

[checks]
positive_data_acceptance.enabled = false
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
negative_data_rejection.expected-statuses = [207, 400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]

[[operations]]
include-path-regex = "^/v1/authorize/"
checks.negative_data_rejection.enabled = false
checks.unsupported_method.enabled = false

[auth.wfc]
path = "users.json"
user = "us"
peers = ["us", "them"]

[parameters]
"""

HOOKS = """
import json

import schemathesis
from hypothesis import strategies as st

EVENTS = st.fixed_dictionaries({"id": st.text("ab1"), "event": st.just("llm"), "customer": st.just("acme")})
LINES = st.lists(st.one_of(EVENTS.map(json.dumps), st.text(), st.just("")))
schemathesis.openapi.media_type("application/x-ndjson", LINES.map(lambda lines: "\\n".join(lines).encode()))
"""
"""What the fuzzer can send in media types that JSON Schema does not describe."""


async def printed(*words: str, folder: Path) -> bytes:
    """What `tallygate openapi` prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from gateway.command.main import main; main()",
        "openapi",
        *words,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said


async def findings(
    url: str, *options: str, folder: Path, token: str, stranger: str, names: dict[str, str] | None = None
) -> tuple[int, str]:
    """How it ended (0: it found nothing), and what it said. `names` are what path parameters stand for.

    `stranger` is the token of somebody who may see nothing that belongs to the other's tenant.
    """
    told = "".join(f'{name} = "{value}"\n' for name, value in (names or {}).items())
    users = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {secret}"}]}
        for name, secret in (("us", token), ("them", stranger))
    ]
    (folder / "users.json").write_text(json.dumps({"auth": users}))
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "schemathesis.toml").write_text(CONFIG + told)
    terms = ("--seed", "1", "--suppress-health-check", "all", "--request-timeout", "60")
    argv = (f"{url}/openapi.json", *terms, *options)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        *argv,
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "160"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")
