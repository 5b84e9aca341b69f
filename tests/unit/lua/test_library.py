"""The library: how many scripts become one text, and what servers say of it."""

from __future__ import annotations

import pytest

from lua.library import Library, Script, ScriptError, build_library, is_absent, is_there_already, listed_names
from lua.loader import parse_script

ONE = "-- One.\nlocal one = 1\n\nlocal function first() return one end\n"
TWO = "local two = one + one\nreturn two\n"
LIBRARIES = {"lib/one.lua": ONE, "lib/two.lua": TWO}
BOTH = ("lib/one.lua", "lib/two.lua as two")


def script(name: str, *includes: str, flags: str = "", why: str = "why") -> Script:
    header = (
        f"#!lua{flags}\n-- {name}: do it.\n-- KEYS\n-- ARGV\n-- RETURNS\n--   one                  1\n-- ERRORS\n"
    )
    errors = "--   INVALID keys         there are some\n-- INVARIANT\n--   one is one\n"
    body = f"if #KEYS ~= 0 then return redis.error_reply('INVALID keys') end\n-- {why}\nreturn 1\n"
    told = "".join(f"--!include {include}\n" for include in includes)
    return parse_script(name, header + errors + told + body, libraries=LIBRARIES)


def library(*scripts: Script) -> Library:
    return build_library(scripts, libraries=LIBRARIES)


def test_each_file_stands_once_and_before_whoever_wants_it() -> None:
    """The text as a server gets it: files, then each act as a function that is registered."""
    made = library(script("act", "lib/two.lua as two"), script("mend", *BOTH, flags=" flags=no-writes"))
    digest = made.name.removeprefix("tallygate_")
    assert made.text.splitlines() == [
        f"#!lua name=tallygate_{digest}",
        "local one = 1",
        "local function first() return one end",
        "local two = (function()",
        "local two = one + one",
        "return two",
        "end)()",
        "redis.register_function{",
        f"function_name = 'act_{digest}', flags = {{  }}, callback = function(KEYS, ARGV)",
        "if #KEYS ~= 0 then return redis.error_reply('INVALID keys') end",
        "return 1",
        "end }",
        "redis.register_function{",
        f"function_name = 'mend_{digest}', flags = {{ 'no-writes' }}, callback = function(KEYS, ARGV)",
        "if #KEYS ~= 0 then return redis.error_reply('INVALID keys') end",
        "return 1",
        "end }",
    ]


def test_a_comment_changes_no_name_and_a_letter_of_code_changes_all() -> None:
    """Two versions that differ stand side by side on one server."""
    first = library(script("act"))
    assert library(script("act", why="because")) == first
    other = library(script("act"), script("mend"))
    assert {first.name, *(one.function for one in first.scripts.values())}.isdisjoint(
        {other.name, *(one.function for one in other.scripts.values())}
    )


def test_a_call_is_the_function_of_its_act() -> None:
    """With the number of keys before them."""
    made = library(script("act"))
    digest = made.name.removeprefix("tallygate_")
    assert made.scripts["act"].call(("k",), ("a", 2)) == ("FCALL", f"act_{digest}", 1, "k", "a", 2)


def test_files_that_each_want_to_be_first_do_not_load() -> None:
    """No order would suit both scripts."""
    with pytest.raises(ScriptError, match="no order suits all scripts"):
        library(script("act", *BOTH), script("mend", *reversed(BOTH)))


def test_two_files_that_know_a_name_do_not_load() -> None:
    """The later one would hide the other's from scripts that never asked for it."""
    libraries = LIBRARIES | {"lib/two.lua": "local two, first = 2, 1\n"}
    scripts = [script("act", "lib/one.lua", "lib/two.lua")]
    with pytest.raises(ScriptError, match=r"lib/two.lua: first is a name of lib/one.lua too"):
        build_library(scripts, libraries=libraries)


@pytest.mark.parametrize(
    "reply",
    [
        [[b"library_name", b"tallygate_a", b"engine", b"LUA"], [b"library_name", b"tallygate_b", b"functions", []]],
        [{b"library_name": b"tallygate_a"}, {b"engine": b"LUA", b"library_name": b"tallygate_b"}],
    ],
)
def test_a_servers_list_is_read_in_both_protocols(reply: object) -> None:
    """Flat lists in RESP2, maps in RESP3."""
    assert listed_names(reply) == ["tallygate_a", "tallygate_b"]
    assert listed_names([]) == []


def test_what_servers_say_is_understood() -> None:
    """With the code in front, as it comes, and without, as the client library hands it on."""
    assert is_absent("ERR Function not found")
    assert is_absent("Function not found")
    assert not is_absent("ERR Library not found")
    assert is_there_already("ERR Library 'tallygate_a' already exists")
    assert not is_there_already("ERR Function not found")
