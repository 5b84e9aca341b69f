"""Where a child listens: free before it starts, ready after."""

from __future__ import annotations

import errno
import http.client
import socket

import msgspec

from billing_core.contract.problem import Problem
from billing_core.errors import ConfigurationError

_PROBE_S = 1.0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A loopback or network address; `key` is the setting that moves it elsewhere."""

    name: str
    host: str
    port: int
    key: str

    @property
    def reach(self) -> str:
        """The host by which a client on this machine gets there, also where it listens on all networks."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not listened on

    @property
    def url(self) -> str:
        host = f"[{self.reach}]" if ":" in self.reach else self.reach
        return f"http://{host}:{self.port}"

    def refuse_busy(self) -> None:
        """Find out whether a child may listen here.

        Raises: ConfigurationError, one line, where it may not.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                busy = error.errno == errno.EADDRINUSE
                why = "is in use by another process" if busy else f"cannot be had: {error.strerror}"
                raise ConfigurationError(
                    f"{self.name}: port {self.port} on {self.host} {why}; set {self.key}"
                ) from None

    def ready(self) -> bool:
        """Its own word: does `GET /readyz` answer 200?"""
        return self.fault() == ""

    def fault(self) -> str:
        """What it says is missing; "" when it is ready."""
        peer = http.client.HTTPConnection(self.reach, self.port, timeout=_PROBE_S)
        try:
            peer.request("GET", "/readyz")
            answer = peer.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer ({error})"
        finally:
            peer.close()
        if answer.status == http.client.OK:
            return ""
        try:
            return msgspec.json.decode(content, type=Problem).detail
        except msgspec.DecodeError:
            return f"status {answer.status}"
