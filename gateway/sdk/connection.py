"""Connections of the blocking client: kept, shared by all threads, and given up at a deadline.

A connection is a socket and llhttp. Whoever asks takes one out of the pool, or makes one, and puts it back when the
answer is whole and the server keeps it; so a connection is never two threads'. One on which something lies before
anything was asked was closed by the other side.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from typing import Final
from urllib.parse import urlsplit

import httptools

from billing_core.errors import ConfigurationError, Unavailable

_READ_BYTES: Final = 65_536
_MAX_ANSWER_BYTES: Final = 16_777_216


class BrokenConnection(Unavailable):
    """A connection broke off before its answer was whole: another one may do."""


class _Reader:
    """What llhttp has read of one answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.chunks: list[bytes] = []
        self.size = 0
        self.is_whole = False

    def on_body(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self.chunks.append(chunk)

    def on_message_complete(self) -> None:
        self.is_whole = True


class Pool:
    """The connections to one server."""

    def __init__(self, url: str, *, headers: dict[str, str], most_idle: int) -> None:
        """Raises: ConfigurationError where the address is none."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigurationError(f"{error}", field="url") from None
        host = parts.hostname
        if not host:
            raise ConfigurationError("names no host", field="url")
        self._url, self._host, self._prefix = url, host, parts.path
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        told = {"Host": parts.netloc.rpartition("@")[2], **headers}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode()
        self._most_idle = most_idle
        self._idle: deque[socket.socket] = deque()
        self._pid = os.getpid()

    def ask(self, path: str, body: bytes, *, until_s: float) -> tuple[int, bytes]:
        """Post the body; status and content of the answer. Clock: monotonic seconds.

        Raises: Unavailable where there is none in time; BrokenConnection.
        """
        kept = self._take()
        try:
            connection = self._connect(until_s) if kept is None else kept
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            raise Unavailable(f"nobody listens at {self._url}: {error.strerror}") from None
        reader = _Reader()
        head = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n"
        try:
            connection.settimeout(_left_s(until_s))
            connection.sendall(head % ((self._prefix + path).encode(), self._head, len(body)) + body)
            while not reader.is_whole:
                connection.settimeout(_left_s(until_s))
                _feed(reader, connection.recv(_READ_BYTES))
        except TimeoutError:
            connection.close()
            raise self._late() from None
        except (OSError, httptools.HttpParserError) as error:
            connection.close()
            self.close()
            raise BrokenConnection(f"the connection to {self._url} broke: {type(error).__name__}") from None
        except BaseException:
            connection.close()
            raise
        self._put_back(connection, reader)
        return reader.parser.get_status_code(), b"".join(reader.chunks)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    def _take(self) -> socket.socket | None:
        if self._pid != os.getpid():  # a fork: they are the parent's
            self._pid = os.getpid()
            self.close()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_readable(connection):
                return connection
            connection.close()
        return None

    def _put_back(self, connection: socket.socket, reader: _Reader) -> None:
        if reader.parser.should_keep_alive() and len(self._idle) < self._most_idle:
            self._idle.append(connection)
        else:
            connection.close()

    def _connect(self, until_s: float) -> socket.socket:
        connection = socket.create_connection((self._host, self._port), timeout=_left_s(until_s))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return connection
        try:
            connection.settimeout(_left_s(until_s))
            return self._tls.wrap_socket(connection, server_hostname=self._host)
        except BaseException:
            connection.close()
            raise

    def _late(self) -> Unavailable:
        return Unavailable(f"no answer from {self._url} in time")


def _feed(reader: _Reader, chunk: bytes) -> None:
    """Read on. Raises: ConnectionResetError at the end of the stream, or where the answer has no end."""
    if not chunk or reader.size > _MAX_ANSWER_BYTES:
        raise ConnectionResetError
    reader.parser.feed_data(chunk)


def _is_readable(connection: socket.socket) -> bool:
    """Whether something lies there unasked, be it only the end."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _left_s(until_s: float) -> float:
    """What is left of the time. Raises: TimeoutError."""
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
