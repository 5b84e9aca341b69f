"""The Redis protocol at the edge of the house: words out, replies in.

A command is a flat array of byte strings; a reply is an integer, a byte string, a list of replies or nothing. An
error reply is a value until somebody waits for it: `CODE detail`, two words, as this house's scripts write them and
as the server itself does.

Source: RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from typing import Final

import hiredis

Word = str | bytes | int
Reply = None | int | bytes | list["Reply"]


class ErrorReply(Exception):  # noqa: N818 - it is the protocol's own word
    """What the server answered instead of a reply: `CONFLICT idempotency`, `NOSCRIPT No matching script`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.detail = text.partition(" ")


class _Nothing:
    """The parser has no whole reply yet."""


_NOTHING: Final = _Nothing()


class ReplyParser:
    """Bytes in, whole replies out; a reply may come in any number of pieces.

    Raises: hiredis.ProtocolError from `take` where the bytes are not RESP.
    """

    def __init__(self) -> None:
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
        self.feed = self._reader.feed

    def take(self) -> list[Reply | ErrorReply]:
        """All replies that are whole by now, in order."""
        replies: list[Reply | ErrorReply] = []
        reply = self._reader.gets()
        while reply is not _NOTHING:
            replies.append(reply)
            reply = self._reader.gets()
        return replies


def encode(words: tuple[Word, ...]) -> bytes:
    """One command as it goes over the wire."""
    return hiredis.pack_command(words)  # pyright: ignore[reportArgumentType] - its stub means a tuple of any length
