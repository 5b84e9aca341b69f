"""`tallygate replay`: drives real traffic through the gate, bills it, and proves that nothing was lost or doubled.

The story in order: read the trace; found a sandbox tenant; publish a catalog; seat customers with a plan, a
balance and a key; drive every request; wait until Postgres holds it; move the sandbox's clock to the end of the
period; wait for the bills, mark the transfers, wait for the card payments and the revenue; prove.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncGenerator, Awaitable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
import uvloop
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from billing_core.contract.shipped import shipped
from billing_core.errors import InvalidInput
from billing_core.values.clock import system_now
from gateway.command.client.door import Door, open_planes, require_root
from gateway.command.client.persistence import PatientPlane, Persistence
from gateway.command.replay.cast import cast_of
from gateway.command.replay.ending import Ending
from gateway.command.replay.latency import Spread, spread_of
from gateway.command.replay.list_price import list_price_of
from gateway.command.replay.page import account_page, books_page, proof_page, traffic_page
from gateway.command.replay.proof import Account, Books, Finding, prove
from gateway.command.replay.stage import Script, Seat, await_gate, found_tenant, set_stage
from gateway.command.replay.trace import Columns, Trace, read_trace
from gateway.command.replay.traffic import Pace, Tally, Traffic
from gateway.command.terminal.desk import Desk, screen
from gateway.command.terminal.document import read_toml

_CATALOG: Final = "catalogs/language_model.toml"
_SAMPLE: Final = "samples/llm_requests.csv"
_PATIENCE_S: Final = 120.0
_FIRST_PATIENCE_S: Final = 15.0
_ANSWER_S: Final = 10.0
_BLINK_S: Final = 0.1


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a replay found out. Shape with `--json`: this."""

    tenant_id: str
    operator_token: str
    requests: int
    settled: int
    refused: dict[str, int]
    retries: int
    seconds: float
    hold: Spread
    settle: Spread
    accounts: tuple[Account, ...]
    books: Books
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether every equality holds."""
        return all(finding.holds for finding in self.findings)


class Narrator:
    """Says on the error stream what is being done, so that the standard output holds nothing but the result."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, markup=False)

    def busy(self, what: str) -> contextlib.AbstractContextManager[object]:
        """Shows what is waited for while the block runs."""
        return self._console.status(what)

    async def await_so(self, what: str, waiting: Awaitable[bool]) -> None:
        """Wait for what another process does, and say where it was in vain."""
        with self.busy(what):
            if not await waiting:
                self.say(f"{what}: not within {_PATIENCE_S:.0f} s, going on")

    @contextlib.asynccontextmanager
    async def watching(self, tally: Tally, *, total: int) -> AsyncGenerator[None]:
        """A progress bar while the block runs."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            bar = progress.add_task("traffic", total=total, rate="")

            async def follow() -> None:
                begun = asyncio.get_running_loop().time()
                while True:
                    await asyncio.sleep(_BLINK_S)
                    rate = tally.done / (asyncio.get_running_loop().time() - begun)
                    again = f", {tally.retries} sent again" if tally.retries else ""
                    progress.update(bar, completed=tally.done, rate=f"{rate:,.0f}/s{again}")

            following = asyncio.create_task(follow())
            try:
                yield
            finally:
                following.cancel()


def replay(  # noqa: PLR0913 - the options of a command
    desk: Desk,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A CSV of timed requests; a shipped sample if left out.")
    ] = None,
    *,
    columns: Annotated[
        str, typer.Option(help="The header's names of time, input and output tokens.")
    ] = "TIMESTAMP,ContextTokens,GeneratedTokens",
    speed: Annotated[float, typer.Option(min=0, help="1 is the file's own time; 0 as fast as it goes.")] = 0,
    limit: Annotated[int, typer.Option(min=0, help="Only so many rows; 0 means all.")] = 0,
    customers: Annotated[int, typer.Option(min=1, max=64, help="Over how many customers they are spread.")] = 8,
    concurrency: Annotated[int, typer.Option(min=1, max=1_024, help="How many requests are open at once.")] = 64,
    plan: Annotated[str, typer.Option(help="The plan of the language-model catalog that they are on.")] = "team",
) -> None:
    """Drive a trace through the gate, bill it, and prove it to the nano. Status 1 where anything differs."""
    trace = read_trace(file or shipped(_SAMPLE), columns_of(columns), limit=limit)
    script = script_of(trace, plan=plan, customers=customers, concurrency=concurrency)
    pace = Pace(speed=speed, concurrency=concurrency)
    door = desk.door()
    require_root(door)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report, tally = runner.run(perform(door, script, trace=trace, pace=pace, narrator=Narrator()))
    if desk.as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        parts = (
            traffic_page(trace, tally, seconds=report.seconds),
            account_page(report.accounts, script.price),
            books_page(report.books, script.price),
            proof_page(report.findings),
        )
        screen().print(Group(*(part for page in parts for part in ("", page))))
        look = f"TALLYGATE_TOKEN={report.operator_token} tallygate invoices list"
        Narrator().say(f"\nThe sandbox stays; to look into it: {look}")
    if not report.holds:
        raise typer.Exit(1)


def columns_of(text: str) -> Columns:
    """Three names, separated by commas.

    Raises: InvalidInput where they are not three.
    """
    names = [name.strip() for name in text.split(",")]
    if len(names) != 3 or not all(names):
        raise InvalidInput("must be three names: time, input, output", field="columns")
    return Columns(time=names[0], input=names[1], output=names[2])


def script_of(trace: Trace, *, plan: str, customers: int, concurrency: int) -> Script:
    """What has to be staged for the trace.

    Raises: InvalidInput where the shipped catalog has no such plan.
    """
    catalog = read_toml(shipped(_CATALOG))
    price = list_price_of(catalog, plan)
    longest = max(request.input_units for request in trace.requests)
    now = system_now().astimezone(UTC)
    return Script(
        run=f"replay-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        catalog=catalog,
        price=price,
        cast=cast_of(trace, customers),
        held_nanos=concurrency * price.cost_nanos(longest, Pace().estimate_units) + Fraction(1),
    )


async def drive(
    door: Door, seats: tuple[Seat, ...], *, script: Script, trace: Trace, pace: Pace, narrator: Narrator
) -> Traffic:
    """Every request through the gate. Raises: Failure where one got no answer for as long as patience lasts."""
    async with open_planes(door, connections=pace.concurrency, timeout_s=_ANSWER_S) as planes:
        keys = tuple(seat.key for seat in seats)
        traffic = Traffic(planes.gateway, trace, keys=keys, run=script.run, pace=pace)
        async with narrator.watching(traffic.tally, total=len(trace.requests)):
            await traffic.drive()
    return traffic


async def finish(ending: Ending, run: str, *, narrator: Narrator) -> datetime:
    """From the last request to recognized revenue; the end of the period."""
    await narrator.await_so("usage is written to Postgres", ending.await_flush())
    until = await ending.close_period(run)
    narrator.say(f"the clock moves on to {until:%Y-%m-%d %H:%M}, the end of the period")
    await narrator.await_so("the period is billed", ending.await_bills())
    narrator.say(f"{await ending.mark_transfers(run)} invoices are marked as paid by ACH or wire")
    await narrator.await_so("the others are collected by Stripe", ending.await_collection())
    await narrator.await_so("revenue is recognized", ending.await_revenue(until))
    return until


async def perform(
    door: Door, script: Script, *, trace: Trace, pace: Pace, narrator: Narrator
) -> tuple[Report, Tally]:
    """The whole story. Raises: Failure where it cannot be told to its end."""
    async with open_planes(door) as planes:
        root = PatientPlane(planes.root, Persistence(patience_s=_FIRST_PATIENCE_S))
        with narrator.busy("the control plane makes a sandbox"):  # it may just be starting again
            tenant = await found_tenant(root, script.run)
    narrator.say(f"sandbox {tenant.tenant_id}, plan {script.price.plan}, customers: {len(script.cast)}")
    inside = msgspec.structs.replace(door, operator_token=tenant.operator_token)
    async with open_planes(inside) as planes:
        operator = PatientPlane(planes.control, Persistence(patience_s=_PATIENCE_S))
        seats = await set_stage(operator, script)
        await await_gate(planes.gateway, seats)
        traffic = await drive(inside, seats, script=script, trace=trace, pace=pace, narrator=narrator)
        ending = Ending(operator, seats, price=script.price, patience_s=_PATIENCE_S)
        until = await finish(ending, script.run, narrator=narrator)
        accounts = await ending.accounts(traffic.tally.charged_nanos, until=until)
        books = await ending.books(script.run)
    tally = traffic.tally
    report = Report(
        tenant_id=tenant.tenant_id,
        operator_token=tenant.operator_token,
        requests=len(trace.requests),
        settled=tally.settled,
        refused=dict(tally.refused),
        retries=tally.retries,
        seconds=traffic.seconds,
        hold=spread_of(tally.hold_ns),
        settle=spread_of(tally.settle_ns),
        accounts=accounts,
        books=books,
        findings=prove(trace, accounts, price=script.price, books=books, settled=tally.settled),
    )
    return report, tally
