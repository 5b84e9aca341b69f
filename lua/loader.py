"""Scripts as files, checked before anything runs.

A script is a Lua file with a header. The header says what the script does, and lists KEYS, ARGV, RETURNS, ERRORS and
INVARIANT; a library in `lib/` has no header and is included by a line `--!include lib/exact.lua`, once in a script.
Headers drift from bodies unless something compares them, so loading compares them:

- all five sections are there, and the script's name is its file's;
- the body binds each key and each argument to a local of the same name, in the header's order;
- an entry that ends in `*` comes once per repetition; only the last ones may, and they are not bound;
- the body refuses any other number of keys;
- the error replies that the body can give are exactly those listed; an error reply is two words, `CODE detail`;
- nothing is named twice.

The text that Valkey gets is the header's first line, then the body with its libraries in place, without comment lines:
comments cost nothing there, but a digest that changes with a comment would make every gateway load anew.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

_HOME: Final = Path(__file__).resolve().parent
_FOLDERS: Final = ("request", "upkeep")
_SECTIONS: Final = ("KEYS", "ARGV", "RETURNS", "ERRORS", "INVARIANT")

_INCLUDE: Final = re.compile(r"--!include (?P<name>lib/[a-z_]+\.lua)")
_TITLE: Final = re.compile(r"-- (?P<name>[a-z_]+): \S")
_ENTRY: Final = re.compile(r"--   (?P<name>[a-z_]+)(?P<many>\*?)\s{2,}\S")
_ERROR: Final = re.compile(r"--   (?P<words>[A-Z]+ [a-z_]+)\s+\S")
_LAW: Final = re.compile(r"--   \S")
_BINDING: Final = re.compile(
    r"^local (?P<names>[a-z_, ]+?)\s*=\s*(?P<values>(?:KEYS|ARGV)\[[^=]*?\])$", re.MULTILINE
)
_SLOT: Final = re.compile(r"(?P<table>KEYS|ARGV)\[(?P<index>\d+)\]")
_KEY_COUNT: Final = re.compile(r"#KEYS ~= (?P<count>\d+)")
_ERROR_LITERAL: Final = re.compile(r"'(?P<words>[A-Z]+ [a-z_]+)'")


class ScriptFault(Exception):
    """A script that cannot be trusted: its header and its body say different things."""


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `arg_names` ends with those that repeat per charge or field, written once."""

    name: str
    text: str
    sha: str
    key_names: tuple[str, ...]
    arg_names: tuple[str, ...]
    repeated_arg_names: tuple[str, ...]
    reply_names: tuple[str, ...]
    repeated_reply_names: tuple[str, ...]
    error_replies: frozenset[str]


def parse_script(name: str, source: str, libraries: Mapping[str, str]) -> Script:
    """A checked script from its source and the libraries it may include, by name such as `lib/exact.lua`.

    Raises: ScriptFault naming the script and what is wrong.
    """
    header, rest = _split(name, source)
    sections = _sections(name, header)
    body = "\n".join(_assembled(name, rest, libraries))
    keys, many_keys = _names(name, "KEYS", sections["KEYS"])
    if many_keys:
        raise ScriptFault(f"{name}: KEYS cannot repeat: {many_keys[0]}")
    args, many_args = _names(name, "ARGV", sections["ARGV"])
    replies, many_replies = _names(name, "RETURNS", sections["RETURNS"])
    _check_bindings(name, "KEYS", keys, body=body)
    _check_bindings(name, "ARGV", args, body=body)
    _check_key_count(name, len(keys), body)
    errors = _check_errors(name, sections["ERRORS"], body)
    if not any(_LAW.match(line) for line in sections["INVARIANT"]):
        raise ScriptFault(f"{name}: INVARIANT states no law")
    text = f"{header[0]}\n{body}\n"
    return Script(
        name=name,
        text=text,
        sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(),
        key_names=keys,
        arg_names=args + many_args,
        repeated_arg_names=many_args,
        reply_names=replies + many_replies,
        repeated_reply_names=many_replies,
        error_replies=errors,
    )


def load_scripts(home: Path = _HOME) -> Mapping[str, Script]:
    """All scripts under a folder, by name.

    Raises: ScriptFault for the first script that is not sound.
    """
    libraries = {f"lib/{file.name}": file.read_text("utf-8") for file in sorted((home / "lib").glob("*.lua"))}
    files = [file for folder in _FOLDERS for file in sorted((home / folder).glob("*.lua"))]
    scripts = {file.stem: parse_script(file.stem, file.read_text("utf-8"), libraries) for file in files}
    if len(scripts) != len(files):
        raise ScriptFault(f"two scripts of one name under {home}")
    return MappingProxyType(scripts)


def assemble(source: str, libraries: Mapping[str, str] | None = None) -> str:
    """A text with its libraries in place, without a header to check: for driving a library alone."""
    if libraries is None:
        libraries = {f"lib/{file.name}": file.read_text("utf-8") for file in (_HOME / "lib").glob("*.lua")}
    return "\n".join(_assembled("text", source.splitlines(), libraries)) + "\n"


def _split(name: str, source: str) -> tuple[list[str], list[str]]:
    """The header's lines, and the lines behind it."""
    lines = source.splitlines()
    if not lines or not lines[0].startswith("#!lua"):
        raise ScriptFault(f"{name}: the first line must be #!lua")
    end = next((at for at, line in enumerate(lines) if at and not re.match(r"--(?!!)", line)), len(lines))
    header = lines[:end]
    title = _TITLE.match(header[1]) if end > 1 else None
    if title is None or title["name"] != name:
        raise ScriptFault(f"{name}: the second line must be `-- {name}: ` and what it does")
    return header, lines[end:]


def _sections(name: str, header: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in header:
        word = line.removeprefix("-- ")
        if word in _SECTIONS:
            lines = found.setdefault(word, [])
        elif found:
            lines.append(line)
    if tuple(found) != _SECTIONS:
        missing = [section for section in _SECTIONS if section not in found]
        raise ScriptFault(f"{name}: header lacks {missing[0]}" if missing else f"{name}: sections are out of order")
    return found


def _names(name: str, section: str, lines: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The single names of a section, and those that repeat."""
    entries: list[tuple[str, bool]] = []
    for line in lines:
        entry = _ENTRY.match(line)
        if entry is None:
            raise ScriptFault(f"{name}: {section}: not an entry: {line!r}")
        entries.append((entry["name"], bool(entry["many"])))
    names = [entry for entry, _ in entries]
    if len(set(names)) != len(names):
        raise ScriptFault(f"{name}: {section} names something twice")
    if [many for _, many in entries] != sorted(many for _, many in entries):
        raise ScriptFault(f"{name}: {section}: what repeats comes last")
    single = tuple(entry for entry, many in entries if not many)
    return single, tuple(entry for entry, many in entries if many)


def _assembled(name: str, lines: list[str], libraries: Mapping[str, str]) -> Iterator[str]:
    """The body's lines with libraries in place, without comment lines and blank lines."""
    included: set[str] = set()
    for line in lines:
        if not line.startswith("--!"):
            yield from _code((line,))
            continue
        include = _INCLUDE.fullmatch(line)
        if include is None or include["name"] not in libraries:
            raise ScriptFault(f"{name}: no such library: {line}")
        if include["name"] in included:
            raise ScriptFault(f"{name}: includes {include['name']} twice")
        included.add(include["name"])
        yield from _code(libraries[include["name"]].splitlines())


def _code(lines: tuple[str, ...] | list[str]) -> Iterator[str]:
    return (line for line in lines if line.strip() and not line.lstrip().startswith("--"))


def _check_bindings(name: str, table: str, names: tuple[str, ...], *, body: str) -> None:
    bound = [
        (local, slot["table"], int(slot["index"]))
        for binding in _BINDING.finditer(body)
        for local, slot in zip(binding["names"].split(","), _SLOT.finditer(binding["values"]), strict=False)
    ]
    given = {index: local.strip() for local, where, index in bound if where == table}
    expected = dict(enumerate(names, start=1))
    if given != expected:
        told, done = _first_difference(expected, given)
        raise ScriptFault(f"{name}: {table}: the header says {told}, the body binds {done}")


def _first_difference(expected: Mapping[int, str], given: Mapping[int, str]) -> tuple[str, str]:
    at = next(at for at in sorted({*expected, *given}) if expected.get(at) != given.get(at))
    return f"{at} {expected.get(at, 'nothing')}", f"{at} {given.get(at, 'nothing')}"


def _check_key_count(name: str, count: int, body: str) -> None:
    found = _KEY_COUNT.search(body)
    if found is None or int(found["count"]) != count:
        raise ScriptFault(f"{name}: the body must refuse any other number of keys than {count}")


def _check_errors(name: str, lines: list[str], body: str) -> frozenset[str]:
    listed: list[str] = []
    for line in lines:
        error = _ERROR.match(line)
        if error is None:
            raise ScriptFault(f"{name}: ERRORS: not `CODE detail` and when: {line!r}")
        listed.append(error["words"])
    used = {found["words"] for found in _ERROR_LITERAL.finditer(body)}
    if len(set(listed)) != len(listed):
        raise ScriptFault(f"{name}: ERRORS lists something twice")
    silent, unlisted = sorted(set(listed) - used), sorted(used - set(listed))
    if unlisted:
        raise ScriptFault(f"{name}: the body answers {unlisted[0]!r}, which ERRORS does not list")
    if silent:
        raise ScriptFault(f"{name}: ERRORS lists {silent[0]!r}, which the body never answers")
    return frozenset(listed)


SCRIPTS: Final[Mapping[str, Script]] = load_scripts()
