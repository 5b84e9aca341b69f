"""Scripts as files, checked before anything runs.

A script is a Lua file with a header. The header says what the script does, and lists KEYS, ARGV, RETURNS, ERRORS
and INVARIANT; a reply that `RETURNS packed` is one msgpack list instead of one of the protocol. A library in `lib/`
has no header. A line `--!include lib/value/exact.lua` makes all its names known to the script; `--!include
lib/hold/hold.lua as hold_acts` keeps them apart and makes known what the library returns, by that name. What a
script does not include is not meant for it, though all scripts become one text (`lua/library.py`).

Headers drift from bodies unless something compares them, so loading compares them:

- all five sections are there, and the script's name is its file's;
- the body binds each key and each argument to a local of the same name, in the header's order;
- an entry that ends in `*` comes once per repetition; only the last ones may, and they are not bound;
- the body refuses any other number of keys;
- the error replies that the body can give are exactly those listed; an error reply is two words, `CODE detail`;
- nothing is named twice.

Comments stay behind: a digest that changed with a comment would make every gateway load anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from lua.library import Include, Library, Script, ScriptError, build_library, code_of, included

_HOME: Final = Path(__file__).resolve().parent
_FOLDERS: Final = ("request", "upkeep")
_SECTIONS: Final = ("KEYS", "ARGV", "RETURNS", "ERRORS", "INVARIANT")
_PACKED: Final = "RETURNS packed"

_INCLUDE: Final = re.compile(r"--!include (?P<name>lib/(?:[a-z_]+/)?[a-z_]+\.lua)(?: as (?P<name_here>[a-z_]+))?")
_SHEBANG: Final = re.compile(r"#!lua(?: flags=(?P<flags>[a-z-]+(?:,[a-z-]+)*))?")
_TITLE: Final = re.compile(r"-- (?P<name>[a-z_]+): \S")
_ENTRY: Final = re.compile(r"--   (?P<name>[a-z_]+)(?P<many>\*?)\s{2,}\S")
_ERROR: Final = re.compile(r"--   (?P<words>[A-Z]+ [a-z_]+)\s+\S")
_LAW: Final = re.compile(r"--   \S")
_BINDING: Final = re.compile(
    r"^local (?P<names>[a-z_, ]+?)\s*=\s*(?P<slots>(?:KEYS|ARGV)\[[^=]*?\])$", re.MULTILINE
)
_SLOT: Final = re.compile(r"(?P<table>KEYS|ARGV)\[(?P<index>\d+)\]")
_KEY_COUNT: Final = re.compile(r"#KEYS ~= (?P<count>\d+)")
_ERROR_LITERAL: Final = re.compile(r"'(?P<words>[A-Z]+ [a-z_]+)'")


def parse_script(name: str, source: str, *, libraries: Mapping[str, str]) -> Script:
    """A checked script from its source and the libraries it may include, by name such as `lib/value/exact.lua`.

    Raises: ScriptError naming the script and what is wrong.
    """
    header, rest = _split(name, source)
    sections = _sections(name, header)
    includes = tuple(_includes(name, rest, libraries=libraries))
    own = "\n".join(code_of(rest))
    body = _assembled(own, includes, libraries=libraries)
    keys, many_keys = _names(name, sections, section="KEYS")
    if many_keys:
        raise ScriptError(f"{name}: KEYS cannot repeat: {many_keys[0]}")
    args, many_args = _names(name, sections, section="ARGV")
    replies, many_replies = _names(name, sections, section="RETURNS")
    _check_bindings(name, body, table="KEYS", names=keys)
    _check_bindings(name, body, table="ARGV", names=args)
    _check_key_count(name, body, count=len(keys))
    errors = _check_errors(name, body, listed_lines=sections["ERRORS"])
    if not any(_LAW.match(line) for line in sections["INVARIANT"]):
        raise ScriptError(f"{name}: INVARIANT states no law")
    return Script(
        name=name,
        function=name,
        text=f"{header[0]}\n{body}\n",
        body=own,
        flags=_flags(header[0]),
        includes=includes,
        key_names=keys,
        arg_names=args + many_args,
        repeated_arg_names=many_args,
        reply_names=replies + many_replies,
        repeated_reply_names=many_replies,
        error_replies=errors,
    )


def load_library(home: Path = _HOME) -> Library:
    """All scripts under a folder, as one library.

    Raises: ScriptError for the first script that is not sound.
    """
    libraries = _libraries(home)
    files = [file for folder in _FOLDERS for file in sorted((home / folder).glob("*.lua"))]
    scripts = {file.stem: parse_script(file.stem, file.read_text("utf-8"), libraries=libraries) for file in files}
    if len(scripts) != len(files):
        raise ScriptError(f"two scripts of one name under {home}")
    return build_library(scripts.values(), libraries=libraries)


def assemble(source: str, libraries: Mapping[str, str] | None = None) -> str:
    """A text with its libraries in place, without a header to check: for driving a library alone."""
    libraries = _libraries(_HOME) if libraries is None else libraries
    lines = source.splitlines()
    includes = tuple(_includes("text", lines, libraries=libraries))
    return _assembled("\n".join(code_of(lines)), includes, libraries=libraries) + "\n"


def _libraries(home: Path) -> dict[str, str]:
    files = sorted((home / "lib").rglob("*.lua"))
    return {file.relative_to(home).as_posix(): file.read_text("utf-8") for file in files}


def _split(name: str, source: str) -> tuple[list[str], list[str]]:
    """The header's lines, and the lines behind it."""
    lines = source.splitlines()
    if not lines or not _SHEBANG.fullmatch(lines[0]):
        raise ScriptError(f"{name}: the first line must be #!lua, and flags where it has some")
    end = next((at for at, line in enumerate(lines) if at and not re.match(r"--(?!!)", line)), len(lines))
    header = lines[:end]
    title = _TITLE.match(header[1]) if end > 1 else None
    if title is None or title["name"] != name:
        raise ScriptError(f"{name}: the second line must be `-- {name}: ` and what it does")
    return header, lines[end:]


def _sections(name: str, header: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in header:
        word = line.removeprefix("-- ")
        word = "RETURNS" if word == _PACKED else word
        if word in _SECTIONS:
            lines = found.setdefault(word, [])
        elif found:
            lines.append(line)
    if tuple(found) != _SECTIONS:
        missing = [section for section in _SECTIONS if section not in found]
        raise ScriptError(f"{name}: header lacks {missing[0]}" if missing else f"{name}: sections are out of order")
    return found


def _names(
    name: str, sections: Mapping[str, list[str]], *, section: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The single names of a section, and those that repeat."""
    entries: list[tuple[str, bool]] = []
    for line in sections[section]:
        entry = _ENTRY.match(line)
        if entry is None:
            raise ScriptError(f"{name}: {section}: not an entry: {line!r}")
        entries.append((entry["name"], bool(entry["many"])))
    names = [entry for entry, _ in entries]
    if len(set(names)) != len(names):
        raise ScriptError(f"{name}: {section} names something twice")
    if [many for _, many in entries] != sorted(many for _, many in entries):
        raise ScriptError(f"{name}: {section}: what repeats comes last")
    single = tuple(entry for entry, many in entries if not many)
    return single, tuple(entry for entry, many in entries if many)


def _flags(first_line: str) -> tuple[str, ...]:
    found = _SHEBANG.fullmatch(first_line)
    return tuple(found["flags"].split(",")) if found and found["flags"] else ()


def _includes(name: str, lines: list[str], *, libraries: Mapping[str, str]) -> Iterator[Include]:
    """What a body includes, in its order."""
    seen: set[str] = set()
    for line in lines:
        if not line.startswith("--!"):
            continue
        include = _INCLUDE.fullmatch(line)
        if include is None or include["name"] not in libraries:
            raise ScriptError(f"{name}: no such library: {line}")
        if include["name"] in seen:
            raise ScriptError(f"{name}: includes {include['name']} twice")
        seen.add(include["name"])
        yield Include(include["name"], include["name_here"] or "")


def _assembled(own: str, includes: Sequence[Include], *, libraries: Mapping[str, str]) -> str:
    """The body behind all that it includes."""
    return "\n".join((*(included(one, libraries[one.library]) for one in includes), own))


def _check_bindings(name: str, body: str, *, table: str, names: tuple[str, ...]) -> None:
    bound = [
        (local, slot["table"], int(slot["index"]))
        for binding in _BINDING.finditer(body)
        for local, slot in zip(binding["names"].split(","), _SLOT.finditer(binding["slots"]), strict=False)
    ]
    given = {index: local.strip() for local, where, index in bound if where == table}
    expected = dict(enumerate(names, start=1))
    if given != expected:
        told, done = _first_difference(expected, given)
        raise ScriptError(f"{name}: {table}: the header says {told}, the body binds {done}")


def _first_difference(expected: Mapping[int, str], given: Mapping[int, str]) -> tuple[str, str]:
    at = next(at for at in sorted({*expected, *given}) if expected.get(at) != given.get(at))
    return f"{at} {expected.get(at, 'nothing')}", f"{at} {given.get(at, 'nothing')}"


def _check_key_count(name: str, body: str, *, count: int) -> None:
    found = _KEY_COUNT.search(body)
    if found is None or int(found["count"]) != count:
        raise ScriptError(f"{name}: the body must refuse any other number of keys than {count}")


def _check_errors(name: str, body: str, *, listed_lines: list[str]) -> frozenset[str]:
    listed: list[str] = []
    for line in listed_lines:
        error = _ERROR.match(line)
        if error is None:
            raise ScriptError(f"{name}: ERRORS: not `CODE detail` and when: {line!r}")
        listed.append(error["words"])
    used = {found["words"] for found in _ERROR_LITERAL.finditer(body)}
    if len(set(listed)) != len(listed):
        raise ScriptError(f"{name}: ERRORS lists something twice")
    silent, unlisted = sorted(set(listed) - used), sorted(used - set(listed))
    if unlisted:
        raise ScriptError(f"{name}: the body answers {unlisted[0]!r}, which ERRORS does not list")
    if silent:
        raise ScriptError(f"{name}: ERRORS lists {silent[0]!r}, which the body never answers")
    return frozenset(listed)


LIBRARY: Final = load_library()
SCRIPTS: Final = LIBRARY.scripts
