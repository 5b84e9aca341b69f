"""Protocol Buffers on the wire: just what reading and writing a handful of messages needs.

A message is a row of fields, each with a tag (number and wire type) and a value. Reading gives the row; whoever
reads picks the tags it knows, and what it does not know is passed over, as the format wants it. What is not well
formed is refused: lengths beyond the end, numbers above 64 bits, groups, field number 0. A message is at most as
long as the connection lets it be, and nothing here nests by itself.

Worked example: `0a 03 61 62 63 18 96 01` is field 1 as text `abc` (tag 0x0a, three bytes) and field 3 as the number
150 (tag 0x18, seven bits at a time, lowest first).

Source: Protocol Buffers documentation, "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from billing_core.errors import InvalidInput

Field = tuple[int, bytes, int]
"""Tag, and the value: bytes, or, of a number, itself. Of what has a fixed length only that it is there."""

NUMBER, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_MAX_SHIFT: Final = 63
_WORD: Final = 2**64
_SMALL: Final = 128
_SMALL_FIELDS: Final = 16
_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}


def tag(number: int, kind: int) -> int:
    """A field's tag."""
    return number << 3 | kind


_KEY: Final = tag(1, BYTES)
_VALUE: Final = tag(2, BYTES)


def fields_of(data: bytes) -> list[Field]:
    """The fields of a message.

    Raises: InvalidInput where it is not well formed.
    """
    found: list[Field] = []
    at, end = 0, len(data)
    try:
        while at < end:
            name = data[at]
            at += 1
            if name >= _SMALL:
                name, at = _number(data, at - 1)
            kind = name & 7
            if kind == BYTES:
                size = data[at]
                at += 1
                if size >= _SMALL:
                    size, at = _number(data, at - 1)
                found.append((name, data[at : at + size], 0))
                at += size
            elif kind == NUMBER:
                value, at = _number(data, at)
                found.append((name, b"", value))
            else:
                at += _FIXED_BYTES[kind]
                found.append((name, b"", 0))
            if not _LEAST_TAG <= name < _TAGS:
                raise InvalidInput("a field without a number", field="message")
    except IndexError:
        raise InvalidInput("it ends within a field", field="message") from None
    except KeyError:
        raise InvalidInput("a group, or no wire type at all", field="message") from None
    if at != end:
        raise InvalidInput("a field longer than its message", field="message")
    return found


_LEAST_TAG: Final = tag(1, NUMBER)
_TAGS: Final = 2**32


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where the next thing begins. Raises: InvalidInput, IndexError."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < _SMALL:
            return value % _WORD, at
        shift += 7
        if shift > _MAX_SHIFT:
            raise InvalidInput("a number above 64 bits", field="message")


def text_of(value: bytes) -> str:
    """Text. Raises: InvalidInput where it is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidInput("a text that is not UTF-8", field="message") from None


def inner(fields: Iterable[Field], name: int) -> bytes:
    """The message inside a message under that tag, empty where there is none.

    What stands there several times is one message in pieces, as the format wants it.
    """
    pieces = [value for found, value, _ in fields if found == name]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def pair_of(data: bytes) -> tuple[str, str]:
    """An entry of a map, or whatever else is text 1 and text 2. Raises: InvalidInput."""
    key = value = ""
    for name, text, _ in fields_of(data):
        if name == _KEY:
            key = text_of(text)
        elif name == _VALUE:
            value = text_of(text)
    return key, value


def encoded_number(value: int) -> bytes:
    """A number as the wire has it; most are short, and those are written in one step."""
    if value < 1 << 7:
        return bytes((value,))
    if value < 1 << 14:
        return bytes((value & 127 | 128, value >> 7))
    if value < 1 << 21:
        return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))
    low = bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14 & 127 | 128))
    return low + encoded_number(value >> 21)


def number_field(number: int, value: int) -> bytes:
    """A number; 0 is not written, because it is what a field that is not there means."""
    return encoded_number(number << 3) + encoded_number(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """Text, bytes or a message; an empty one is written, because of a message it means that it is there."""
    size = len(value)
    if size < _SMALL and number < _SMALL_FIELDS:
        return bytes((number << 3 | BYTES, size)) + value
    return encoded_number(number << 3 | BYTES) + encoded_number(size) + value


def text_field(number: int, value: str) -> bytes:
    """Text; an empty one is not written."""
    return bytes_field(number, value.encode(errors="replace")) if value else b""


@lru_cache(maxsize=256)
def _name_field(name: str) -> bytes:
    return text_field(1, name)


def header(name: str, value: str) -> bytes:
    """A header, or whatever else is text 1 and text 2; there are few names, which are remembered."""
    return _name_field(name) + text_field(2, value)
