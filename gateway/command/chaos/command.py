"""`tallygate chaos`: a house of its own under traffic and faults, and the table of what was lost (nothing).

Faults come in an order that the seed decides: every kind once, shuffled, then every kind again, until the time is
over. After each the house is left alone until it is quiet, and everything that was answered is held against what is
written. What survives: with `--fsync always` nothing that was answered is lost, whatever dies. With `everysec` a
process that is killed loses nothing either, because what it wrote is the kernel's by then; a machine that loses its
power may lose the last second, and this command pulls no plugs.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated, Final

import msgspec
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from billing_core.errors import ConfigurationError, InvalidInput
from gateway.command.chaos.fault import FAULTS
from gateway.command.chaos.house import Ground, standing
from gateway.command.chaos.siege import Force, Outcome, besieging
from gateway.command.terminal.desk import screen

_WORDS_SHOWN: Final = 20


class Fsync(StrEnum):
    """When Valkey writes its log through to the disk."""

    ALWAYS = "always"
    EVERYSEC = "everysec"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a siege found out. Shape with `--json`: this."""

    seed: int
    fsync: str
    seconds: float
    outcomes: tuple[Outcome, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was wrong."""
        return all(outcome.verdict.is_clean for outcome in self.outcomes)


def chaos(  # noqa: PLR0913 - the options of a command
    *,
    minutes: Annotated[float, typer.Option(min=0.01, help="For how long new faults are injected.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides order, victims and traffic; 0: a new one.")] = 0,
    fsync: Annotated[Fsync, typer.Option(help="Valkey's appendfsync.")] = Fsync.ALWAYS,
    fault: Annotated[
        list[str] | None, typer.Option(help=f"Only this one (may be repeated): {', '.join(FAULTS)}.")
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, max=256, help="How many acts are under way at once.")] = 8,
    lease_ms: Annotated[int, typer.Option(min=100, help="A flusher's lease; a stop lasts longer.")] = 1_000,
    data_dir: Annotated[Path | None, typer.Option(help="An empty folder; else a temporary one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the account as JSON.")] = False,
) -> None:
    """Kill, stop, starve and cut off a house of its own under traffic. Status 1 where anything was lost."""
    faults = tuple(fault or FAULTS)
    strange = sorted(set(faults) - set(FAULTS))
    if strange:
        raise InvalidInput(f"{strange[0]}: no such fault; there are {', '.join(FAULTS)}", field="fault")
    folder = _empty_folder(data_dir)
    ground = Ground(folder=folder, fsync=fsync.value, lease_ms=lease_ms)
    force = Force(lanes=lanes, stop_s=1.6 * lease_ms / 1_000)
    narrator = Console(stderr=True, highlight=False)
    seed = seed or secrets.randbelow(10**9) + 1
    narrator.print(f"seed {seed}, appendfsync {fsync.value}, in {folder}", markup=False, soft_wrap=True)
    deck = _deck(faults, random.Random(seed))  # noqa: S311 - to be repeated, not to be unguessable
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        account = runner.run(
            _besiege(ground, force, deck=deck, seed=seed, until_s=60 * minutes, tell=_teller(narrator))
        )
    if data_dir is None and account.is_clean:
        shutil.rmtree(folder)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(account), indent=2).decode() + "\n")
    else:
        screen().print(_page(account))
    if not account.is_clean:
        narrator.print(f"what it left stands in {folder}", markup=False, soft_wrap=True)
        raise typer.Exit(1)


def _empty_folder(told: Path | None) -> Path:
    """The folder to work in. Raises: ConfigurationError where there is something in it already."""
    if told is None:
        return Path(tempfile.mkdtemp(prefix="tallygate-chaos-"))
    folder = told.expanduser().absolute()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty: chaos makes its own data, and harms nobody else's")
    return folder


def _deck(faults: tuple[str, ...], chance: random.Random) -> Iterator[str]:
    """All faults in some order, then all again in another."""
    while True:
        yield from chance.sample(faults, len(faults))


async def _besiege(
    ground: Ground,
    force: Force,
    *,
    deck: Iterator[str],
    seed: int,
    until_s: float,
    tell: Callable[[Outcome], None],
) -> Account:
    begun_s = time.monotonic()
    outcomes: list[Outcome] = []
    chance = random.Random(seed)  # noqa: S311
    async with standing(ground) as house, besieging(house, force=force, chance=chance) as siege:
        begun_s = time.monotonic()
        for fault in itertools.takewhile(lambda _: time.monotonic() - begun_s < until_s, deck):
            outcomes.append(await siege.endure(fault, stop_s=force.stop_s))
            tell(outcomes[-1])
    return Account(seed=seed, fsync=ground.fsync, seconds=time.monotonic() - begun_s, outcomes=tuple(outcomes))


def _teller(narrator: Console) -> Callable[[Outcome], None]:
    def tell(outcome: Outcome) -> None:
        verdict = outcome.verdict
        narrator.print(
            f"{outcome.fault}: {outcome.allowed} allowed, {outcome.unanswered} unanswered and asked again, "
            f"back in {outcome.recovery_s:.2f} s, {'nothing is wrong' if verdict.is_clean else 'WRONG'}",
            markup=False,
            soft_wrap=True,
        )
        for words in verdict.words[:_WORDS_SHOWN]:
            narrator.print(f"  {words}", markup=False, soft_wrap=True, style="red")

    return tell


def _page(account: Account) -> Table:
    table = Table(
        title=f"{account.seconds / 60:.1f} minutes, appendfsync {account.fsync}, seed {account.seed}", box=None
    )
    table.add_column("fault")
    for name in (
        "injected",
        "decisions",
        "allowed",
        "lost",
        "doubled",
        "overspent",
        "broken laws",
        "back in s",
        "worst",
    ):
        table.add_column(name, justify="right")
    by_fault = {name: [one for one in account.outcomes if one.fault == name] for name in FAULTS}
    for name, outcomes in by_fault.items():
        if outcomes:
            table.add_row(name, *_row(outcomes))
    if account.outcomes:
        table.add_section()
        table.add_row("all", *_row(list(account.outcomes)), style="bold")
    return table


def _row(outcomes: list[Outcome]) -> tuple[str, ...]:
    recoveries = [one.recovery_s for one in outcomes]
    counts = (
        len(outcomes),
        sum(one.decided for one in outcomes),
        sum(one.allowed for one in outcomes),
        sum(one.verdict.lost for one in outcomes),
        sum(one.verdict.doubled for one in outcomes),
        sum(one.verdict.overspent for one in outcomes),
        sum(one.verdict.broken for one in outcomes),
    )
    return (*(f"{count:,}" for count in counts), f"{median(recoveries):.2f}", f"{max(recoveries):.2f}")
