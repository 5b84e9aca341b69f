"""`tallygate up`: everything on one machine, in the order in which one thing needs the other.

    servers (Valkey, Postgres) → schema → Stripe double → billing, flusher → gateways → demo

Nothing starts before all settings are read, the data folder is locked and the ports were found free, so that what
is wrong is said in one line while nothing has to be undone. Stopping goes the other way. When the supervisor is
killed, the kernel ends its children: servers by the signal on which they shut down cleanly, others at once, for
they own nothing that a crash could hurt.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Final

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.postgres import STOP_MS as POSTGRES_STOP_MS
from gateway.command.embedded.postgres import start_postgres
from gateway.command.embedded.process import Child, Program, start, take_lock
from gateway.command.embedded.valkey import STOP_MS as VALKEY_STOP_MS
from gateway.command.embedded.valkey import start_valkey
from gateway.command.machine.endpoint import Endpoint
from gateway.command.machine.herd import Herd, Post
from gateway.command.machine.keyring import Keyring, open_keyring, own_receipt_key
from gateway.command.machine.plan import PYTHON, Plan

_SERVER, _DOUBLE, _BILLING, _GATEWAY = range(4)
_MIGRATE_MS: Final = 600_000
_PATIENCE_MS: Final = 10_000


class Supervisor:
    """The processes of one data folder; `environment` is what they share.

    Gateways reach Redis by `detour`, an address, where there is one.
    """

    def __init__(self, plan: Plan, tell: Callable[[str], None], *, detour: str = "", flushers: int = 1) -> None:
        self.plan = plan
        self._detour, self._flushers = detour, flushers
        self.herd = Herd(tell, healthy=lambda: all(endpoint.ready() for endpoint in plan.endpoints()))
        self._tell = tell
        self.environment = dict(plan.environment)

    @contextmanager
    def standing(self) -> Generator[Keyring]:
        """Start everything, and stop it when the block ends in whatever way.

        Raises: ConfigurationError or Unavailable, one line; KeyboardInterrupt on SIGINT, SIGTERM and SIGHUP.
        """
        folder = self.plan.folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock_folder(self.plan)
        try:
            for endpoint in self.plan.places():
                endpoint.refuse_busy()
            with _signals_interrupt(), self._stopping():
                configured = self.environment["TALLYGATE_BILLING_ROOT_TOKEN"]
                keyring = open_keyring(folder, root_token=configured)
                self._start_servers()
                self._start_workers(keyring)
                yield keyring
        finally:
            os.close(lock)

    @contextmanager
    def _stopping(self) -> Generator[None]:
        try:
            yield
        finally:
            try:
                self.herd.stop()
            except KeyboardInterrupt:
                self._tell("interrupted again: everything is killed")
                self.herd.kill()

    def _start_servers(self) -> None:
        up, folder = self.plan.up, self.plan.folder
        redis_url, postgres_url = up.redis_url, up.postgres_url
        if not redis_url:
            valkey = start_valkey(folder, binary=up.valkey_binary, appendfsync=up.appendfsync)
            post = Post(name="valkey", rank=_SERVER, begin=valkey.begin_again, patience_ms=VALKEY_STOP_MS)
            self.herd.adopt(post, valkey.child)
            redis_url = valkey.url
        if not postgres_url:
            postgres = start_postgres(folder, programs=up.postgres_programs)
            post = Post(
                name="postgres",
                rank=_SERVER,
                begin=postgres.begin_again,
                farewell=signal.SIGINT,
                patience_ms=POSTGRES_STOP_MS,
            )
            self.herd.adopt(post, postgres.child)
            postgres_url = postgres.url()
        self.environment |= {
            "TALLYGATE_GATEWAY_REDIS_URL": self._detour or redis_url,
            "TALLYGATE_BILLING_REDIS_URL": redis_url,
            "TALLYGATE_BILLING_POSTGRES_URL": postgres_url,
        }

    def _share_run_folder(self) -> None:
        """Give gateways a folder to find each other in, without sockets of processes that are no more."""
        if self.environment["TALLYGATE_GATEWAY_RUN_DIR"]:
            return
        sockets = socket_folder(self.plan.folder)
        for left in sockets.glob("gateway-*.sock"):
            left.unlink()
        self.environment["TALLYGATE_GATEWAY_RUN_DIR"] = str(sockets)

    def _start_workers(self, keyring: Keyring) -> None:
        plan = self.plan
        self.environment["TALLYGATE_BILLING_ROOT_TOKEN"] = keyring.root_token
        self._migrate()
        if plan.stripe is not None:
            self.environment["TALLYGATE_BILLING_STRIPE_WEBHOOK_SECRET"] = keyring.stripe_webhook_secret
            self._await_ready(self._fill_stripe(plan.stripe.port), plan.stripe)
        roles = "TALLYGATE_BILLING_ROLES"
        billing = self._fill("billing", "billing_core.worker", rank=_BILLING, own={roles: "api,relay,cycle"})
        for number in range(self._flushers):
            name = f"flusher-{number}" if number else "flusher"
            self._fill(name, "billing_core.worker", rank=_BILLING, own={roles: "flush"})
        self._share_run_folder()
        self._equip_gateways()
        gateways = [self._fill_gateway(number) for number in range(plan.up.gateway_workers)]
        self._await_ready(billing, plan.billing)
        for gateway in gateways:
            self._await_ready(gateway, plan.gateway)

    def _equip_gateways(self) -> None:
        """Give gateways a key for receipts and a folder for journals in the data folder, unless told other ones."""
        folder, key = self.plan.folder, "TALLYGATE_GATEWAY_RECEIPT_KEY_FILE"
        if not self.environment[key]:
            self.environment[key] = str(own_receipt_key(folder))
        journals = "TALLYGATE_GATEWAY_JOURNAL_DIR"
        if not self.environment[journals]:
            self.environment[journals] = str(folder / "journal")

    def _fill_stripe(self, port: int) -> Child:
        """It takes on customers that it never made, so that a demonstration can name any."""
        folder = self.plan.folder / "stripe"
        folder.mkdir(mode=0o700, exist_ok=True)
        arguments = (
            *("--port", str(port), "--journal", str(folder / "journal.jsonl"), "--adopt-customers"),
            *("--webhook-url", f"{self.plan.billing.url}/v1/webhooks/stripe"),
        )
        return self._fill("stripe", "billing_core.adapters.stripe_double", *arguments, rank=_DOUBLE, own={})

    def _fill_gateway(self, number: int) -> Child:
        own = {"TALLYGATE_GATEWAY_WORKER_INDEX": str(number)}
        patience_ms = _PATIENCE_MS + int(self.environment["TALLYGATE_GATEWAY_STOP_GRACE_MS"])
        return self._fill(f"gateway-{number}", "gateway.edge", rank=_GATEWAY, own=own, patience_ms=patience_ms)

    def _fill(
        self, name: str, *module: str, rank: int, own: dict[str, str], patience_ms: int = _PATIENCE_MS
    ) -> Child:
        program = self._program(name, *module, own=own)
        post = Post(name=name, rank=rank, begin=partial(start, program), patience_ms=patience_ms)
        return self.herd.fill(post)

    def _program(self, name: str, *module: str, own: dict[str, str]) -> Program:
        return Program(
            name=name,
            argv=(*PYTHON, *module),
            environment=self.environment | own,
            log_file=self.plan.folder / "log" / f"{name}.log",
        )

    def _await_ready(self, child: Child, endpoint: Endpoint) -> None:
        try:
            child.wait_ready(endpoint.ready, timeout_ms=self.plan.up.ready_timeout_ms)
        except Unavailable as failure:
            if child.exit_status() is None:
                raise Unavailable(f"{failure.detail}; it says: {endpoint.fault()}") from None
            raise

    def _migrate(self) -> None:
        child = start(self._program("migrate", "billing_core.migrate", own={}))
        ended = child.wait(_MIGRATE_MS)
        child.finish(timeout_ms=0)
        if not ended or child.exit_status() != 0:
            raise Unavailable(f"the schema could not be brought up to date: {child.last_words()}")


def _lock_folder(plan: Plan) -> int:
    try:
        return take_lock(plan.folder / "lock", timeout_ms=0)
    except ConfigurationError:
        raise ConfigurationError(
            f"{plan.folder} is in use by another `tallygate up`; stop it, or set up.data_dir"
        ) from None


@contextmanager
def _signals_interrupt() -> Generator[None]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does; what `nohup` told to be ignored stays ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
