"""`tallygate up`: start everything on this machine, say where it listens, and keep it alive until Ctrl-C."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.command.client.address import Addresses, publish_addresses
from gateway.command.machine.demo import ensure_demo, read_catalog
from gateway.command.machine.keyring import Demo
from gateway.command.machine.plan import Plan, make_plan
from gateway.command.machine.supervisor import Supervisor


def up(
    config: Annotated[
        Path | None, typer.Option(envvar="TALLYGATE_CONFIG", help="A settings file; see config/tallygate.toml.")
    ] = None,
    data_dir: Annotated[
        str, typer.Option(envvar="TALLYGATE_UP_DATA_DIR", help="Where data, logs and secrets of this machine live.")
    ] = "",
) -> None:
    """Start Valkey, Postgres, billing and gateways on this machine, and keep them alive until Ctrl-C."""
    console = Console(highlight=False)
    environ = dict(os.environ) | ({"TALLYGATE_UP_DATA_DIR": data_dir} if data_dir else {})
    plan = make_plan(config, environ)
    if plan.up.demo:
        read_catalog(plan.up.demo_catalog)  # a wrong one is told before anything starts
    supervisor = Supervisor(plan, tell=lambda line: console.print(line, markup=False, soft_wrap=True))
    console.print(f"tallygate: starting in {plan.folder}", markup=False, soft_wrap=True)
    try:
        with supervisor.standing() as keyring:
            demo = ensure_demo(plan, keyring) if plan.up.demo else None
            addresses = Addresses(control_url=plan.billing.url, gateway_url=plan.gateway.url)
            publish_addresses(plan.folder, addresses)
            _show(console, plan, demo=demo)
            supervisor.herd.watch()
    except KeyboardInterrupt:
        console.print("tallygate: everything is stopped")


def _show(console: Console, plan: Plan, *, demo: Demo | None) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row(
        "gateway", f"{plan.gateway.url}  ({plan.up.gateway_workers} processes; /v1/check, /v1/events, /metrics)"
    )
    if plan.grpc is not None:
        table.add_row("grpc", f"{plan.grpc.reach}:{plan.grpc.port}  (for Envoy: ext_authz, rate limit service)")
    if plan.proxy is not None:
        table.add_row("proxy", f"{plan.proxy.url}  (routes: gateway.proxy_routes_file)")
    table.add_row("billing", f"{plan.billing.url}  (control plane; /healthz, /metrics)")
    if plan.stripe is not None:
        table.add_row("stripe", f"{plan.stripe.url}  (a double: no real money moves)")
    table.add_row("redis", plan.up.redis_url or "embedded Valkey")
    table.add_row("postgres", plan.up.postgres_url or "embedded PostgreSQL")
    table.add_row("data", str(plan.folder))
    table.add_row("logs", str(plan.folder / "log"))
    table.add_row("secrets", str(plan.folder / "keyring.json"))
    console.print(table)
    if demo is not None:
        console.print("\nTry it:\n", style="bold")
        console.print(_curl(plan, demo), markup=False, soft_wrap=True, highlight=False)
        console.print("\nThe whole job, from requests to revenue:\n", style="bold")
        console.print(f"{_own_name()} replay", markup=False, soft_wrap=True, highlight=False)
    console.print("\nReady. Ctrl-C stops everything.")


def _curl(plan: Plan, demo: Demo) -> str:
    return (
        f"curl -s {plan.gateway.url}/v1/check -H 'content-type: application/json' \\\n"
        f'  -d \'{{"key": "{demo.key}", "feature": "{demo.feature}", "quantity": 1000}}\''
    )


def _own_name() -> str:
    """How the person at the terminal calls this command again."""
    program = Path(sys.argv[0]).absolute()
    here = Path.cwd()
    return os.fspath(program.relative_to(here)) if program.is_relative_to(here) else "tallygate"
