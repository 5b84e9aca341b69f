"""What `tallygate up` is going to do: settings of every process, resolved and checked before anything starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from billing_core.contract.configuration import environment_of, load
from billing_core.errors import ConfigurationError
from gateway.command.machine.endpoint import Endpoint
from gateway.command.settings import UpSettings, data_folder
from gateway.settings import GatewaySettings

PYTHON: Final = (sys.executable, "-P", "-m")
_DOUBLE_KEY: Final = "sk_test_tallygate"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the supervisor, and the environment that each child gets."""

    up: UpSettings
    folder: Path
    gateway: Endpoint
    grpc: Endpoint | None
    proxy: Endpoint | None
    billing: Endpoint
    stripe: Endpoint | None
    environment: dict[str, str]

    def endpoints(self) -> tuple[Endpoint, ...]:
        """Whoever says over HTTP that it is ready."""
        return (self.gateway, self.billing) if self.stripe is None else (self.gateway, self.billing, self.stripe)

    def places(self) -> tuple[Endpoint, ...]:
        """Everything that a child will listen on."""
        return (*self.endpoints(), *(place for place in (self.grpc, self.proxy) if place is not None))


def make_plan(file: Path | None, environ: Mapping[str, str]) -> Plan:
    """Read the file and the environment.

    Raises: ConfigurationError, one line: where, which key, which rule.
    """
    up = load("up", UpSettings, file=file, environ=environ)
    gateway = load("gateway", GatewaySettings, file=file, environ=environ)
    environment = dict(environ) | environment_of("gateway", gateway) | _billing_environment(file, environ)
    own_stripe = not environment["TALLYGATE_BILLING_STRIPE_API_KEY"]
    stripe = Endpoint(name="Stripe double", host="127.0.0.1", port=up.stripe_port, key="up.stripe_port")
    if own_stripe:
        environment["TALLYGATE_BILLING_STRIPE_API_KEY"] = _DOUBLE_KEY
        environment["TALLYGATE_BILLING_STRIPE_API_BASE"] = stripe.url
    grpc = Endpoint(name="gateway", host=gateway.host, port=gateway.grpc_port, key="gateway.grpc_port")
    proxy = Endpoint(name="gateway", host=gateway.host, port=gateway.proxy_port, key="gateway.proxy_port")
    return Plan(
        up=up,
        folder=data_folder(up, environ),
        gateway=Endpoint(name="gateway", host=gateway.host, port=gateway.port, key="gateway.port"),
        grpc=grpc if gateway.grpc_port else None,
        proxy=proxy if gateway.proxy_port else None,
        billing=Endpoint(
            name="billing",
            host=environment["TALLYGATE_BILLING_HOST"],
            port=int(environment["TALLYGATE_BILLING_PORT"]),
            key="billing.port",
        ),
        stripe=stripe if own_stripe else None,
        environment=environment,
    )


def _billing_environment(file: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Ask the billing side what it was told; the gateway's side does not look into it."""
    asked = subprocess.run(
        (*PYTHON, "billing_core.describe", *([] if file is None else [os.fspath(file)])),
        check=False,
        capture_output=True,
        env=environ,
    )
    if asked.returncode != 0:
        lines = asked.stderr.decode(errors="replace").strip().splitlines() or [f"status {asked.returncode}"]
        raise ConfigurationError(lines[-1])
    return msgspec.json.decode(asked.stdout, type=dict[str, str])
