"""Usage frames of language models, in the dialects that are spoken.

    chat completions   `usage` of a body or of the last chunk; cached tokens are inside the prompt's count
    responses          `usage` of a body, or of `response` in `response.completed`; cached tokens are inside too
    messages           `usage` of a body, of `message` in `message_start`, and of `message_delta`: cumulative, the
                       last of each number counts; cached tokens are outside the input's count

Here `input` is what was not read from a cache, in all of them.

Worked example: 100 prompt tokens of which 40 were cached are input 60 and cached 40, and so are 60 input tokens
beside 40 that were read from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from gateway.edge.proxy.rule import UsagePart

_NAMED: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens. Invariant: `input` and `cached` have none in common."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def part(self, part: UsagePart | None) -> int:
        """One number of it."""
        if part is UsagePart.INPUT:
            return self.input
        if part is UsagePart.CACHED:
            return self.cached
        return self.output if part is UsagePart.OUTPUT else self.input + self.cached + self.output


def frame_in(document: object) -> Mapping[str, Any] | None:
    """The usage frame of a body or an event; None where it has none."""
    if not isinstance(document, dict):
        return None
    told = cast("dict[str, Any]", document)
    for place in (told, told.get("response"), told.get("message")):
        if isinstance(place, dict):
            frame = cast("dict[str, Any]", place).get("usage")
            if isinstance(frame, dict):
                return cast("dict[str, Any]", frame)
    return None


def updated(usage: Usage | None, frame: Mapping[str, Any]) -> Usage:
    """What is known after this frame; numbers that it does not have stay as they were."""
    known = usage or Usage()
    if "prompt_tokens" in frame or "input_tokens_details" in frame:
        details = frame.get("prompt_tokens_details") or frame.get("input_tokens_details")
        cached = _count(cast("dict[str, Any]", details), "cached_tokens") if isinstance(details, dict) else 0
        prompt = _count(frame, "prompt_tokens") or _count(frame, "input_tokens")
        output = _count(frame, "completion_tokens") or _count(frame, "output_tokens")
        return Usage(input=max(0, prompt - cached), cached=cached, output=output)
    inside = _count(frame, "input_tokens", known=known.input) if "input_tokens" in frame else known.input
    if "input_tokens" in frame:
        inside += _count(frame, "cache_creation_input_tokens")
    return Usage(
        input=inside,
        cached=_count(frame, "cache_read_input_tokens", known=known.cached),
        output=_count(frame, "output_tokens", known=known.output),
    )


def with_usage(body: bytes) -> bytes | None:
    """The body of a request for a stream, asking for the usage chunk; None where it asks already, or for no stream.

    What else stands there is kept word for word.
    """
    try:
        told = _NAMED.decode(body)
        options = _NAMED.decode(told["stream_options"]) if "stream_options" in told else {}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if bytes(told.get("stream", b"")) != b"true" or bytes(options.get("include_usage", b"")) == b"true":
        return None
    options["include_usage"] = msgspec.Raw(b"true")
    told["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(told)


def _count(frame: Mapping[str, Any], name: str, *, known: int = 0) -> int:
    value = frame.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else known
