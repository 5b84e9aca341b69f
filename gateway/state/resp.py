"""The Redis protocol at the edge of the house: words out, replies in.

A command is a flat array of byte strings; a reply is an integer, a byte string, a list of replies or nothing. An
error reply is a value until somebody waits for it: `CODE detail`, two words, as this house's scripts write them and
as the server itself does.

Source: RESP2, https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import hiredis

Word = str | bytes | int
Reply = None | int | bytes | list["Reply"]
Flat = list[int | bytes]
"""What the scripts of this house answer."""


class ErrorReply(Exception):  # noqa: N818 - it is the protocol's own word
    """What the server answered instead of a reply: `CONFLICT idempotency`, `ERR Function not found`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code, _, self.detail = text.partition(" ")


_PACK = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)  # its stub means a tuple of one


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
    return _PACK(words)


def flat(reply: Reply) -> Flat:
    """The words of a flat reply.

    Raises: TypeError where it is none.
    """
    if not isinstance(reply, list):
        raise TypeError("not a list")
    words = [word for word in reply if isinstance(word, int | bytes)]
    if len(words) != len(reply):
        raise TypeError("a nested or empty word")
    return words


def text_of(word: int | bytes) -> str:
    """A word of a reply as text."""
    return word.decode() if isinstance(word, bytes) else str(word)
