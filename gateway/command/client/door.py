"""How a command gets in: two addresses and the credentials for them.

What is told on the command line wins over the environment, and both win over the data folder of the `tallygate up`
that runs on this machine: its addresses, its root token, and the operator token of its demo tenant.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from aiohttp import ClientSession

from billing_core.contract.configuration import load
from billing_core.errors import Unauthenticated
from gateway.command.client.address import published_addresses
from gateway.command.client.plane import Plane, new_session
from gateway.command.machine.keyring import Keyring, open_keyring
from gateway.command.settings import UpSettings, data_folder


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line and the environment said; "" where they were silent."""

    url: str = ""
    gateway_url: str = ""
    token: str = ""
    root_token: str = ""
    data_dir: str = ""


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """Both addresses, and the credentials that were found; "" where there is none."""

    control_url: str
    gateway_url: str
    operator_token: str
    root_token: str


class Planes(msgspec.Struct, frozen=True, kw_only=True):
    """Who can be asked: the control plane as operator and as root, and the gateway."""

    control: Plane
    root: Plane
    gateway: Plane


def find_door(told: Told, environ: Mapping[str, str]) -> Door:
    """The way in. Raises: ConfigurationError where a file of the data folder cannot be read."""
    file = Path(environ["TALLYGATE_CONFIG"]) if environ.get("TALLYGATE_CONFIG") else None
    settings = load("up", UpSettings, file=file, environ=environ)
    if told.data_dir:
        settings = msgspec.structs.replace(settings, data_dir=told.data_dir)
    folder = data_folder(settings, environ)
    addresses = published_addresses(folder)
    keyring = open_keyring(folder) if (folder / "keyring.json").exists() else None
    return Door(
        control_url=told.url or addresses.control_url,
        gateway_url=told.gateway_url or addresses.gateway_url,
        operator_token=told.token or _demo_token(keyring),
        root_token=told.root_token
        or environ.get("TALLYGATE_BILLING_ROOT_TOKEN", "")
        or ("" if keyring is None else keyring.root_token),
    )


def _demo_token(keyring: Keyring | None) -> str:
    return "" if keyring is None or keyring.demo is None else keyring.demo.operator_token


def require_root(door: Door) -> None:
    """Raise Unauthenticated, saying what to give, unless there is a root token."""
    if not door.root_token:
        raise Unauthenticated("no root token: start `tallygate up` on this machine, or set --root-token")


@asynccontextmanager
async def open_planes(door: Door, *, connections: int = 16, timeout_s: float = 60.0) -> AsyncGenerator[Planes]:
    """Both planes, over one session that is closed at the end."""
    async with new_session(connections=connections, timeout_s=timeout_s) as session:
        yield Planes(
            control=control_plane(session, door.control_url, token=door.operator_token),
            root=control_plane(session, door.control_url, token=door.root_token, credential_flag="--root-token"),
            gateway=Plane(
                session, door.gateway_url, name="gateway", flag="--gateway-url", token=door.operator_token
            ),
        )


def control_plane(session: ClientSession, url: str, *, token: str, credential_flag: str = "--token") -> Plane:
    """The control plane, asked with this token."""
    return Plane(session, url, name="control plane", flag="--url", token=token, credential_flag=credential_flag)
