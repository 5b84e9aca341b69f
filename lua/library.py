"""All scripts as one library of server functions.

A script that the server runs by `EVALSHA` makes all its functions anew in every call. A library is run once, when
it is loaded; from then on a call costs what the act itself costs. So all scripts become one text: each file of
`lib/` once, in an order in which every script finds what it includes, and then each script as a function.

The library and its functions carry a digest of the text, so that two versions of Tallygate can use one server side
by side. Who brings a library that was not there takes older ones away; who still needs one of those is told
`Function not found`, which means that nothing ran, brings it back and calls again.

What stands at the top level of a library lives as long as the server does, and all calls share it. So it holds
functions and constants, and no state, but for a memo of a pure function whose size has a bound: a replica that was
promoted, or a server that was started anew, must decide the same with an empty one. A table that is shared, such
as `NONE`, is never written to. Lua allows 200 names at the top level and 60 of them in one function; the server
refuses a library that has more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Any, Final

import msgspec

_PREFIX: Final = "tallygate_"
_DIGEST_LENGTH: Final = 16
_TOP_LEVEL: Final = re.compile(r"^local (?:function )?(?P<names>\w+(?:, \w+)*)", re.MULTILINE)

LISTING: Final = ("FUNCTION", "LIST", "LIBRARYNAME", f"{_PREFIX}*")
"""The command that asks a server which of our libraries it has; see `listed_names`."""


class ScriptError(Exception):
    """A script that cannot be trusted: its header and its body say different things."""


class Include(msgspec.Struct, frozen=True):
    """A file of `lib/` in a script; with a name, the script sees of it what it returns, under that name."""

    library: str
    name: str = ""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `function` is its name on the server; `arg_names` ends with those that repeat per charge or field,
    written once; `text` is the act alone, with all that it includes."""

    name: str
    function: str
    text: str
    body: str
    flags: tuple[str, ...]
    includes: tuple[Include, ...]
    key_names: tuple[str, ...]
    arg_names: tuple[str, ...]
    repeated_arg_names: tuple[str, ...]
    reply_names: tuple[str, ...]
    repeated_reply_names: tuple[str, ...]
    error_replies: frozenset[str]

    def call(self, keys: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...]:
        """The words of the command that runs it."""
        return ("FCALL", self.function, len(keys), *keys, *args)


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """All scripts, as a server has them."""

    name: str
    text: str
    scripts: Mapping[str, Script]

    def loading(self) -> tuple[str, ...]:
        """The words of the command that brings it to a server; see `is_there_already`."""
        return ("FUNCTION", "LOAD", self.text)


def build_library(scripts: Iterable[Script], *, libraries: Mapping[str, str]) -> Library:
    """The library of these scripts, each with its name on the server.

    Raises: ScriptError where no order of the files suits all scripts, or two of them share a name.
    """
    known = list(scripts)
    texts = list(_once(known, libraries=libraries))
    draft = _text(texts, known, digest="")
    digest = hashlib.sha256(draft.encode()).hexdigest()[:_DIGEST_LENGTH]
    named = {script.name: msgspec.structs.replace(script, function=f"{script.name}_{digest}") for script in known}
    text = _text(texts, known, digest=digest)
    return Library(name=f"{_PREFIX}{digest}", text=text, scripts=MappingProxyType(named))


def included(include: Include, source: str) -> str:
    """The code of a library where a script includes it."""
    code = "\n".join(code_of(source.splitlines()))
    return f"local {include.name} = (function()\n{code}\nend)()" if include.name else code


def code_of(lines: Iterable[str]) -> Iterator[str]:
    """These lines without comments and blank ones."""
    return (line for line in lines if line.strip() and not line.lstrip().startswith("--"))


def listed_names(reply: Any) -> list[str]:
    """Our libraries in a server's reply to LISTING; RESP3 has maps where RESP2 has flat lists."""
    rows: list[dict[bytes, bytes]] = [
        row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True)) for row in reply
    ]
    return [row[b"library_name"].decode() for row in rows]


def is_absent(error: object) -> bool:
    """Whether an error reply says that the server does not know the function; then nothing ran."""
    return str(error).removeprefix("ERR ") == "Function not found"


def is_there_already(error: object) -> bool:
    """Whether an error reply says that somebody else has loaded the library in between."""
    return str(error).endswith("already exists")


def _once(scripts: Sequence[Script], *, libraries: Mapping[str, str]) -> Iterator[str]:
    """Each included file's code, in an order that suits all scripts."""
    sorter = TopologicalSorter[Include]()
    for script in scripts:
        for place, include in enumerate(script.includes):
            sorter.add(include, *script.includes[max(0, place - 1) : place])
    try:
        order = list(sorter.static_order())
    except CycleError as cycle:
        raise ScriptError(f"no order suits all scripts: {' '.join(one.library for one in cycle.args[1])}") from None
    taken: dict[str, str] = {}
    for include in order:
        text = included(include, libraries[include.library])
        for found in _TOP_LEVEL.finditer(f"local {include.name}" if include.name else text):
            for name in found["names"].split(", "):
                if name in taken:
                    raise ScriptError(f"{include.library}: {name} is a name of {taken[name]} too")
                taken[name] = include.library
        yield text


def _text(texts: Sequence[str], scripts: Sequence[Script], *, digest: str) -> str:
    parts = [f"#!lua name={_PREFIX}{digest}", *texts]
    for script in scripts:
        flags = ", ".join(f"'{flag}'" for flag in script.flags)
        parts += (
            "redis.register_function{",
            f"function_name = '{script.name}_{digest}', flags = {{ {flags} }}, callback = function(KEYS, ARGV)",
            script.body,
            "end }",
        )
    return "\n".join(parts) + "\n"
