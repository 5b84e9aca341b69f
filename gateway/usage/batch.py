"""The ways to write an event, and several events, into one body."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from billing_core.contract.problem import decode_json
from billing_core.errors import Failure
from gateway.usage.array import PlainEvent, read_lines_plainly, read_plainly
from gateway.usage.cloudevent import CLOUD_WORDS, cloud_id_in, read_cloud_event
from gateway.usage.event import Event, id_in, read_event

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """How one event is written: who reads it, who finds its id at least, and what it calls its parts."""

    read: Callable[[bytes], Event]
    id_in: Callable[[bytes], str | None]
    words: Mapping[str, str]

    def failure(self, failure: Failure) -> Failure:
        """A failure in the words in which the event was written."""
        part, dot, rest = failure.field.partition(".")
        if part not in self.words:
            return failure
        return type(failure)(failure.detail, field=f"{self.words[part]}{dot}{rest}")


OWN = Form(read=read_event, id_in=id_in, words={})
CLOUD = Form(read=read_cloud_event, id_in=cloud_id_in, words=CLOUD_WORDS)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one body: all of them read at one go, if that could be; and `cut`, each by itself."""

    cut: Callable[[], list[bytes]]
    plain: list[PlainEvent] | None = None
    form: Form = OWN


def array_of(body: bytes) -> Batch:
    """The events of a JSON array. Cutting raises: InvalidInput where it is none."""
    return Batch(cut=lambda: _cut(body), plain=read_plainly(body))


def lines_of(body: bytes) -> Batch:
    """Newline-delimited JSON: an event a line; lines without one are passed over."""
    return Batch(cut=lambda: _lines(body), plain=read_lines_plainly(body))


def cloud_events_of(body: bytes) -> Batch:
    """A JSON array of CloudEvents. Cutting raises: InvalidInput where it is none."""
    return Batch(cut=lambda: _cut(body), form=CLOUD)


def _cut(body: bytes) -> list[bytes]:
    return [bytes(raw) for raw in decode_json(body, _ARRAY)]


def _lines(body: bytes) -> list[bytes]:
    return [line for line in map(bytes.strip, body.split(b"\n")) if line]
