"""The control plane over HTTP, as any other client sees it: JSON in, JSON out, problems become failures."""

from __future__ import annotations

import http.client
import urllib.parse
from typing import Final, TypeVar

import msgspec

from billing_core.errors import Conflict, Failure, NotFound, Unavailable

_TIMEOUT_S: Final = 60.0

Answer = TypeVar("Answer")


class ControlPlane:
    """One address and one credential."""

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Failure(f"{url} is no address of a control plane")
        self._tls = parts.scheme == "https"
        self._host = parts.netloc
        self._token = token

    def get(self, path: str, answer: type[Answer]) -> Answer:
        """The document at the path.

        Raises: Failure with the control plane's own words.
        """
        return self._read(answer, self._call("GET", path))

    def put(self, path: str, document: object) -> None:
        """Replace the document at the path."""
        self._call("PUT", path, document=document)

    def post(self, path: str, document: object, *, answer: type[Answer], idempotency_key: str) -> Answer:
        """Create below the path; the same key gets the first answer back."""
        return self._read(answer, self._call("POST", path, document=document, idempotency_key=idempotency_key))

    def _read(self, answer: type[Answer], content: bytes) -> Answer:
        try:
            return msgspec.json.decode(content, type=answer)
        except msgspec.DecodeError as error:
            raise Unavailable(f"{self._host} answered what cannot be understood: {error}") from None

    def _call(self, method: str, path: str, *, document: object = None, idempotency_key: str = "") -> bytes:
        connect = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        peer = connect(self._host, timeout=_TIMEOUT_S)
        body = None if document is None else msgspec.json.encode(document)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        try:
            peer.request(method, path, body=body, headers=headers)
            answer = peer.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the control plane at {self._host} does not answer: {error}") from None
        finally:
            peer.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise _failure(answer.status, content, f"{method} {path}")
        return content


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a problem document (RFC 9457) that a person reads."""

    title: str = ""
    detail: str = ""


def _failure(status: int, content: bytes, what: str) -> Failure:
    try:
        problem = msgspec.json.decode(content, type=_Problem)
    except msgspec.DecodeError:
        problem = _Problem(detail=content.decode(errors="replace")[:200])
    kind = {404: NotFound, 409: Conflict, 503: Unavailable}.get(status, Failure)
    return kind(f"{what}: {status} {problem.detail or problem.title}")
