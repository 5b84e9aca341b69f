"""The command `tallygate`: one entry point, every fault one line.

Each group of commands is a module of its own that brings a typer application; this file only hangs them up.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from billing_core.errors import Failure
from gateway.command import up
from gateway.command.chaos import command as siege
from gateway.command.topic.tree import hang_all

app = typer.Typer(
    name="tallygate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def tallygate() -> None:
    """Entitlement and billing gateway: decide, debit and record in one atomic step; bill it later."""


app.command(name="up")(up.up)
app.command(name="chaos")(siege.chaos)
hang_all(app)


def main() -> None:
    """Run the command; a Failure is one line on the error stream and status 2."""
    try:
        app()
    except Failure as failure:
        Console(stderr=True, highlight=False).print(
            f"tallygate: {failure.detail}", style="red", markup=False, soft_wrap=True
        )
        sys.exit(2)
