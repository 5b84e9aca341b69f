"""The desk that every command works at: who is asked, how it is shown, and what a fault looks like.

A command is a function whose first parameter is its desk; `hang` registers it and adds the options that all
commands share, so that `--json` may stand where a person types it: behind the command.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer
from rich.console import Console, RenderableType

from billing_core.errors import ConfigurationError, Failure
from gateway.command.client.answer import Answer, told
from gateway.command.client.door import Door, Planes, Told, find_door, open_planes

Value = TypeVar("Value")

_WIDE = 200
_PANEL = "Connection and output"


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """The way in and the way out of one command."""

    told: Told
    as_json: bool

    def door(self) -> Door:
        """The way in. Raises: ConfigurationError where a file of the data folder cannot be read."""
        return find_door(self.told, os.environ)

    def show(
        self, ask: Callable[[Planes], Awaitable[Answer[Value]]], view: Callable[[Value], RenderableType]
    ) -> Value:
        """Ask, print the answer as the view says or as JSON, and return it. Raises: Failure as a plane tells it."""
        answer = asyncio.run(self._ask(ask))
        if self.as_json:
            sys.stdout.write(msgspec.json.format(answer.raw, indent=2).decode() + "\n")
        else:
            screen().print(view(answer.value))
        return answer.value

    async def _ask(self, ask: Callable[[Planes], Awaitable[Answer[Value]]]) -> Answer[Value]:
        async with open_planes(self.door()) as planes:
            return await ask(planes)


def screen() -> Console:
    """The standard output; wide where it is no terminal, so that a pipe gets whole lines."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)


def fail(failure: Failure) -> NoReturn:
    """One line on the error stream, then the end with status 1 (2 where the command itself was told wrong)."""
    Console(stderr=True).print(f"tallygate: {told(failure)}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2 if isinstance(failure, ConfigurationError) else 1)


def hang(app: typer.Typer, name: str, **groups: Callable[..., object]) -> Callable[[Callable[..., None]], None]:
    """Register the decorated function as the command of that name, with the shared options behind its own.

    A group is a function whose parameters are options; what it makes of them is the parameter of that name.
    A failure is one line and status 1.
    """

    def register(act: Callable[..., None]) -> None:
        own = [one for one in _parameters(act)[1:] if one.name not in groups]
        grouped = {group: [one.name for one in _parameters(made_by)] for group, made_by in groups.items()}
        shared = _parameters(_shared)

        def command(**given: Any) -> None:
            desk = _shared(**{one.name: given.pop(one.name) for one in shared})
            try:
                for group, names in grouped.items():
                    given[group] = groups[group](**{name: given.pop(name) for name in names})
                act(desk, **given)
            except Failure as failure:
                fail(failure)

        brought = [one for made_by in groups.values() for one in _parameters(made_by)]
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *brought, *shared)]
        command.__doc__ = act.__doc__
        command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        app.command(name)(command)

    return register


def _parameters(made_by: Callable[..., object]) -> list[inspect.Parameter]:
    return list(inspect.signature(made_by, eval_str=True).parameters.values())


def _shared(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the plane's answer as JSON.", rich_help_panel=_PANEL)
    ] = False,
    url: Annotated[
        str, typer.Option(envvar="TALLYGATE_URL", help="The control plane's address.", rich_help_panel=_PANEL)
    ] = "",
    gateway_url: Annotated[
        str, typer.Option(envvar="TALLYGATE_GATEWAY_URL", help="The gateway's address.", rich_help_panel=_PANEL)
    ] = "",
    token: Annotated[
        str, typer.Option(envvar="TALLYGATE_TOKEN", help="A tenant's operator token.", rich_help_panel=_PANEL)
    ] = "",
    root_token: Annotated[
        str,
        typer.Option(envvar="TALLYGATE_ROOT_TOKEN", help="The installation's root token.", rich_help_panel=_PANEL),
    ] = "",
    data_dir: Annotated[
        str,
        typer.Option(
            envvar="TALLYGATE_UP_DATA_DIR",
            help="The data folder of the `tallygate up` to talk to.",
            rich_help_panel=_PANEL,
        ),
    ] = "",
) -> Desk:
    told_so = Told(url=url, gateway_url=gateway_url, token=token, root_token=root_token, data_dir=data_dir)
    return Desk(told=told_so, as_json=as_json)
