"""CloudEvents 1.0: what a CloudEvent says, in the words of an event of our own.

    source, id   `id`: `source|id`. Two events are the same if both are, and no source has a `|` in it. In the id
                 `%`, `"`, blanks and what is not ASCII are percent-encoded, as in a header of the HTTP binding
    type         `event`
    subject      `customer`
    time         `time`; required: if it were the time of arrival, a retry would be another event
    data         `fields`: an object in JSON, or base64 of one; none where there is no data
    all others   must be attributes, and are not kept: what a meter is to read stands in `data`

Worked example: `{"specversion": "1.0", "source": "/gpu/7", "id": "e1", "type": "llm.tokens", "subject": "acme",
"time": "2026-05-01T12:00:00Z", "data": {"input": 374}}` is the event `/gpu/7|e1` of the customer acme.

Source: CloudEvents 1.0.2; its JSON event format, sections 2 to 4; its HTTP protocol binding, section 3.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import quote, unquote_to_bytes

import msgspec

from billing_core.contract.document import decode_strictly
from billing_core.contract.problem import decode_json
from billing_core.errors import InvalidInput
from billing_core.values.ids import IDEMPOTENCY_KEY_LENGTH, Code
from gateway.usage.event import Event, Fields, read_event

CLOUD_WORDS: Final = {"event": "type", "customer": "subject", "fields": "data"}
"""What a CloudEvent calls the parts of an event."""

PREFIX: Final = "ce-"
_VERSION: Final = "1.0"
_BETWEEN: Final = "|"
_DATA: Final = "data"
_CODED: Final = "data_base64"
_REQUIRED: Final = ("specversion", "id", "source", "type", "subject", "time")
_NAME: Final = re.compile(r"[a-z0-9]+")
_URI: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '%"')
_MOST: Final = 2**31 - 1
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder(object)
_ANY = msgspec.json.Decoder(msgspec.Raw)
_ENCODER = msgspec.json.Encoder()


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One CloudEvent in the JSON event format. Further attributes may stand beside these, and are not kept."""

    specversion: Literal["1.0"]
    id: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
    source: Annotated[str, msgspec.Meta(pattern=rf"^{_URI.pattern}\Z")]
    type: Code
    subject: Code
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: Fields | None = None
    data_base64: str | None = None


def read_cloud_event(raw: bytes) -> Event:
    """One CloudEvent in the JSON event format, sound by itself.

    Raises: InvalidInput naming field and rule, in the words of an event of our own but for those above.
    """
    members = decode_strictly(raw, _MEMBERS)
    told = _attributes(members)
    _check(told)
    event = {
        "id": _event_id(told["id"], told["source"]),
        "event": told["type"],
        "time": told["time"],
        "customer": told["subject"],
        "fields": _data(members, told.get("datacontenttype", "")),
    }
    return read_event(_ENCODER.encode(event))


def cloud_id_in(raw: bytes) -> str | None:
    """The id of an event that is not sound, where it can be told."""
    try:
        told = _attributes(_MEMBERS.decode(raw))
        return _event_id(told["id"], told["source"])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, InvalidInput):
        return None


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether header fields tell the attributes of a CloudEvent whose data is the body."""
    return any(PREFIX + name in headers for name in ("specversion", "id", "source", "type"))


def structured(headers: Mapping[str, str], body: bytes, *, content_type: str) -> bytes:
    """The CloudEvent of a request in binary mode, in the JSON event format.

    Raises: InvalidInput.
    """
    told: dict[str, object] = {}
    for header, value in headers.items():
        name = header.lower().removeprefix(PREFIX)
        if not header.lower().startswith(PREFIX):
            continue
        if name in told:
            raise InvalidInput("comes twice", field=name)
        if name in (_DATA, "datacontenttype"):
            raise InvalidInput("is no header: the body is the data, and Content-Type says what it is", field=name)
        told[name] = _unescaped(value, name)
    if content_type:
        told["datacontenttype"] = content_type
    if body.strip():
        told[_DATA] = decode_json(body, _ANY)
    return _ENCODER.encode(told)


def _attributes(members: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """The attributes; those that are null are not there, and those that are no texts say nothing here."""
    told: dict[str, str] = {}
    for name, raw in members.items():
        if name in (_DATA, _CODED):
            continue
        if not _NAME.fullmatch(name):
            raise InvalidInput("is no attribute: its name is of lower-case letters and digits", field=name)
        value = decode_json(bytes(raw), _VALUE)
        if isinstance(value, str):
            if _CONTROL.search(value):
                raise InvalidInput("must not contain control characters", field=name)
            told[name] = value
        elif value is not None:
            _check_other(name, value)
    return told


def _check_other(name: str, value: object) -> None:
    """Refuse what is no text where there must be one, and no attribute anywhere. Raises: InvalidInput."""
    if name in _REQUIRED or name in ("datacontenttype", "dataschema"):
        raise InvalidInput("must be a text", field=name)
    if not isinstance(value, int) or not -_MOST - 1 <= value <= _MOST:
        raise InvalidInput("must be a text, a boolean or a whole number of 32 bits", field=name)


def _check(told: Mapping[str, str]) -> None:
    """Raises: InvalidInput."""
    for name in _REQUIRED:
        if not told.get(name):
            raise InvalidInput("is required", field=name)
    if told["specversion"] != _VERSION:
        raise InvalidInput(f"must be {_VERSION}", field="specversion")


def _event_id(cloud_id: str, source: str) -> str:
    """Our name of what a source calls so. Raises: InvalidInput."""
    if not _URI.fullmatch(source):
        raise InvalidInput("must be a URI reference", field="source")
    event_id = f"{source}{_BETWEEN}{quote(cloud_id, safe=_PLAIN)}"
    if len(event_id) > IDEMPOTENCY_KEY_LENGTH:
        rule = f"must have at most {IDEMPOTENCY_KEY_LENGTH - 1} characters together with `source`"
        raise InvalidInput(rule, field="id")
    return event_id


def _data(members: Mapping[str, msgspec.Raw], content_type: str) -> msgspec.Raw:
    """The data, as JSON. Raises: InvalidInput."""
    raw, coded = members.get(_DATA), members.get(_CODED)
    kind = content_type.partition(";")[0].strip().lower()
    if raw is not None and coded is not None:
        raise InvalidInput("stands either here or in `data`, not in both", field=_CODED)
    if raw is None and coded is None:
        return msgspec.Raw(b"{}")
    if kind and not kind.endswith(("/json", "+json")):
        raise InvalidInput("must be JSON, because a meter reads it", field="datacontenttype")
    if coded is not None:
        raw = _decoded(coded)
    return msgspec.Raw(b"{}") if raw is None or bytes(raw) == b"null" else raw


def _decoded(coded: msgspec.Raw) -> msgspec.Raw:
    try:
        text = _VALUE.decode(coded)
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
        return _ANY.decode(data)
    except (binascii.Error, ValueError, RecursionError, msgspec.DecodeError):
        raise InvalidInput("must be base64 of JSON", field=_CODED) from None


def _unescaped(value: str, name: str) -> str:
    """What a header field says: first what is in quotation marks, then percents. Raises: InvalidInput."""
    plain = _QUOTED.sub(lambda found: re.sub(r"\\(.)", r"\1", found[1]), value)
    try:
        return unquote_to_bytes(plain.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError:
        raise InvalidInput("must be UTF-8, percent-encoded", field=name) from None
