"""One plane over HTTP: an address, a credential, JSON in and JSON out.

Every failure that a caller can meet is one of the house's: a problem document becomes the failure it tells, and a
plane that does not answer becomes Unavailable, whose call may be tried again, because every act that changes
something carries an idempotency key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import aiohttp
import msgspec

from billing_core.errors import ConfigurationError, Unauthenticated, Unavailable
from gateway.command.client.answer import Answer, failure_of, read_answer

Value = TypeVar("Value")

_TIMEOUT_S: Final = 60.0
_REFUSED: Final = 400
_NOBODY: Final = 401


class Body(msgspec.Struct, frozen=True):
    """What a request carries: bytes and what they are."""

    content: bytes
    media_type: str = "application/json"

    @classmethod
    def json(cls, document: object) -> Body:
        """The document as JSON."""
        return cls(msgspec.json.encode(document))


class Plane:
    """A plane that can be asked. `name` is what messages call it; the flags say what to set where it fails."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        name: str,
        flag: str,
        token: str = "",
        credential_flag: str = "--token",
    ) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._name = name
        self._flag = flag
        self._credential_flag = credential_flag
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def get(self, path: str, kind: type[Value], *, query: Mapping[str, str] | None = None) -> Answer[Value]:
        """What stands at the path. Empty values of the query are left out.

        Raises: Failure as the plane tells it; Unavailable where it does not answer.
        """
        return await self._ask("GET", path, kind=kind, query=query)

    async def put(self, path: str, kind: type[Value], *, body: object) -> Answer[Value]:
        """Replace what stands at the path. Raises: as `get`."""
        return await self._ask("PUT", path, kind=kind, body=Body.json(body))

    async def post(
        self, path: str, kind: type[Value], *, body: object = None, idempotency_key: str = ""
    ) -> Answer[Value]:
        """Do something; the same key gets the first answer back. Raises: as `get`."""
        return await self._ask("POST", path, kind=kind, body=Body.json(body or {}), idempotency_key=idempotency_key)

    async def send(self, path: str, kind: type[Value], *, body: Body) -> Answer[Value]:
        """Post bytes as they are. Raises: as `get`."""
        return await self._ask("POST", path, kind=kind, body=body)

    async def delete(self, path: str, kind: type[Value]) -> Answer[Value]:
        """Take away what stands at the path. Raises: as `get`."""
        return await self._ask("DELETE", path, kind=kind)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        kind: type[Value],
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        idempotency_key: str = "",
    ) -> Answer[Value]:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = body.media_type
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        try:
            async with self._session.request(
                method,
                self._url + path,
                params={name: value for name, value in (query or {}).items() if value},
                data=None if body is None else body.content,
                headers=headers,
                allow_redirects=False,
            ) as reply:
                content, status = await reply.read(), reply.status
        except aiohttp.InvalidURL:
            raise ConfigurationError(f"{self._url} is no address of a {self._name}; set {self._flag}") from None
        except aiohttp.ClientConnectorError:
            raise Unavailable(
                f"no {self._name} listens at {self._url}: start it with `tallygate up`, or set {self._flag}"
            ) from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            words = str(error) or type(error).__name__
            raise Unavailable(f"the {self._name} at {self._url} gave no answer: {words}") from None
        if status == _NOBODY and not self._headers:
            wanted = f"start `tallygate up` on this machine, or set {self._credential_flag}"
            raise Unauthenticated(f"the {self._name} wants a token: {wanted}")
        if status >= _REFUSED:
            raise failure_of(status, content, plane=self._name)
        return read_answer(content, kind, plane=self._name)


def new_session(*, connections: int = 16, timeout_s: float = _TIMEOUT_S) -> aiohttp.ClientSession:
    """A session for both planes. Call it inside a running loop, and close it."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        auto_decompress=True,
    )
