"""Where Redis is: a URL, taken apart.

`redis://[user[:password]@]host[:port][/database]` goes over TCP, `unix://[user[:password]@]/path[?db=database]`
over a unix socket, `redis+cluster://[user[:password]@]host:port[,host:port...]` names nodes of a cluster. What
is not understood is refused when the process starts, not when the first request comes.
"""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from billing_core.contract.cluster import is_cluster, seeds_of
from billing_core.errors import ConfigurationError

DEFAULT_PORT = 6379


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address and who to be there. `path` is set for a unix socket and empty for TCP."""

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    database: int = 0
    user: str = ""
    password: str = ""

    def greeting(self) -> list[tuple[str, ...]]:
        """The commands that a fresh connection begins with."""
        commands: list[tuple[str, ...]] = []
        if self.password:
            commands.append(("AUTH", self.user, self.password) if self.user else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", str(self.database)))
        return commands

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def endpoints_of(url: str) -> tuple[Endpoint, ...]:
    """The endpoints that a URL names: one, or some nodes of a cluster.

    Raises: ConfigurationError, one line, where the URL cannot be understood.
    """
    if not is_cluster(url):
        return (endpoint_of(url),)
    seeds = seeds_of(url)
    return tuple(
        Endpoint(host=host, port=port, user=seeds.user, password=seeds.password) for host, port in seeds.places
    )


def endpoint_of(url: str) -> Endpoint:
    """The one endpoint that a URL names.

    Raises: ConfigurationError, one line, where the URL cannot be understood.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORT
    except ValueError as error:
        raise ConfigurationError(f"redis_url: {error}", field="redis_url") from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix" and parts.path:
        return Endpoint(path=unquote(parts.path), database=_database_in_query(parts), user=user, password=password)
    if parts.scheme == "redis" and parts.hostname:
        database = _database(parts.path.strip("/") or "0")
        return Endpoint(host=parts.hostname, port=port, database=database, user=user, password=password)
    raise ConfigurationError(
        "redis_url: must be redis://host[:port][/db] or unix:///path[?db=n] or redis+cluster://host:port,...",
        field="redis_url",
    )


def _database_in_query(parts: SplitResult) -> int:
    query = dict(parse_qsl(parts.query))
    strangers = sorted(set(query) - {"db"})
    if strangers:
        raise ConfigurationError(f"redis_url: {strangers[0]}: unknown parameter", field="redis_url")
    return _database(query.get("db", "0"))


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ConfigurationError(f"redis_url: {text!r} is not a database number", field="redis_url")
    return int(text)
