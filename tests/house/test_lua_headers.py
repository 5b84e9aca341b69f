"""Headers of scripts are held against their bodies; a header that lies does not load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lua.library import ScriptError, code_of
from lua.loader import LIBRARY, SCRIPTS, parse_script

LUA = Path(__file__).parents[2] / "lua"
LIBRARIES = {
    "lib/number.lua": "-- Numbers.\nlocal LIMIT = 10\n\nlocal function fault() return 'INVALID amount' end\n"
}

SOUND = """#!lua
-- take: take an amount out of a box, once.
--
-- A sentence more.
--
-- KEYS
--   box_key              what it is taken from
--   stream_key           where it is told
-- ARGV
--   amount               how much
--   count                how many names follow
--   name*                of each who takes part
-- RETURNS
--   left                 what is left
-- ERRORS
--   INVALID amount       not a whole number
--   UNKNOWN box          there is none
-- INVARIANT
--   what is taken is told
--!include lib/number.lua

local box_key, stream_key = KEYS[1], KEYS[2]
local amount, count =
  ARGV[1], ARGV[2]

if #KEYS ~= 2 then return redis.error_reply(fault()) end
if redis.call('EXISTS', box_key) == 0 then return redis.error_reply('UNKNOWN box') end
-- A comment says why.
redis.call('XADD', stream_key, '*', 'count', count)
return redis.call('DECRBY', box_key, amount)
"""

LIES = [
    ("the shebang is missing", "#!lua\n", "", "first line"),
    ("it is named otherwise than its file", "-- take: ", "-- grab: ", "second line"),
    ("a section is missing", "-- INVARIANT\n--   what is taken is told\n", "", "lacks INVARIANT"),
    ("sections are out of order", "-- ERRORS", "-- INVARIANT\n--   law\n-- ERRORS", "out of order"),
    ("no law is stated", "--   what is taken is told\n", "", "states no law"),
    ("a key is named otherwise", "--   box_key  ", "--   chest_key", "the header says 1 chest_key"),
    (
        "keys are listed in another order",
        "local box_key, stream_key",
        "local stream_key, box_key",
        "binds 1 stream_key",
    ),
    ("a key is not bound", "KEYS[1], KEYS[2]\n", "KEYS[1]\n", "binds 2 nothing"),
    ("a key is bound that is not listed", "--   stream_key           where it is told\n", "", "says 2 nothing"),
    ("an argument is named otherwise", "local amount, count", "local sum, count", "binds 1 sum"),
    ("an argument is not bound", "  ARGV[1], ARGV[2]", "  ARGV[1]", "binds 2 nothing"),
    (
        "what repeats is not last",
        "--   count                how",
        "--   count*               how",
        "the body binds 2 count",
    ),
    (
        "what repeats stands before what does not",
        "--   amount               how",
        "--   amount*              how",
        "last",
    ),
    ("an entry says nothing", "--   amount               how much", "--   amount", "not an entry"),
    ("a name is listed twice", "--   count ", "--   amount", "names something twice"),
    ("another number of keys is let in", "#KEYS ~= 2", "#KEYS ~= 3", "any other number of keys than 2"),
    ("the number of keys is not checked", "#KEYS ~= 2", "amount == ''", "any other number of keys than 2"),
    ("an error is not listed", "--   UNKNOWN box          there is none\n", "", "does not list"),
    ("an error is never answered", "--   UNKNOWN box ", "--   UNKNOWN lid ", "does not list"),
    ("an error of a library is not listed", "--   INVALID amount       not a whole number\n", "", "does not list"),
    (
        "an error is listed that nobody answers",
        "-- INVARIANT",
        "--   CONFLICT box         never\n-- INVARIANT",
        "never answers",
    ),
    (
        "an error is listed twice",
        "-- INVARIANT",
        "--   UNKNOWN box          again\n-- INVARIANT",
        "something twice",
    ),
    (
        "an error is one word",
        "--   UNKNOWN box          there is none",
        "--   UNKNOWN          there is none",
        "CODE detail",
    ),
    ("a library does not exist", "lib/number.lua", "lib/missing.lua", "no such library"),
    ("a library is included twice", "--!include lib/number.lua", "--!include lib/number.lua\n" * 2, "twice"),
    ("a directive is misspelt", "--!include lib", "--!includes lib", "no such library"),
]


def test_a_script_that_says_what_it_does_loads() -> None:
    """The sample below is sound; each lie changes one thing of it."""
    script = parse_script("take", SOUND, libraries=LIBRARIES)
    assert script.key_names == ("box_key", "stream_key")
    assert (script.arg_names, script.repeated_arg_names) == (("amount", "count", "name"), ("name",))
    assert script.error_replies == {"INVALID amount", "UNKNOWN box"}


@pytest.mark.parametrize(("lie", "true", "told", "complaint"), LIES, ids=[row[0] for row in LIES])
def test_a_header_that_lies_does_not_load(lie: str, true: str, told: str, complaint: str) -> None:
    """Each part of a header is compared with the body, and the complaint says where they differ."""
    assert true in SOUND
    with pytest.raises(ScriptError, match=complaint) as caught:
        parse_script("take", SOUND.replace(true, told, 1), libraries=LIBRARIES)
    assert str(caught.value).startswith("take: ")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_of_the_house_is_whole(name: str) -> None:
    """All loaded; a script that only reads says so to the server."""
    script = SCRIPTS[name]
    reads_only = name in ("peek", "wallet_read", "usage_read", "clock")
    assert script.flags == (("no-writes",) if reads_only else ())
    assert script.key_names[0] == "epoch_key"
    assert ("UNAVAILABLE epoch" in script.error_replies) == (name != "clock")
    assert script.reply_names


def test_no_script_speaks_in_floats_or_json() -> None:
    """Numbers leave as text by digits(); no balance passes cjson, and no error is raised where a reply is meant."""
    for word in ("cjson", "tostring(", "error(", "math.random", "KEYS *", "redis.pcall"):
        assert word not in LIBRARY.text


FLOORS = ("value", "level", "money", "plain", "hold", "decision")


def test_what_is_included_stands_on_what_is_below_it() -> None:
    """No file of `lib/` uses a name of a higher floor."""
    scripts = [*(LUA / "request").glob("*.lua"), *(LUA / "upkeep").glob("*.lua")]
    told = {
        name: file for one in scripts for file, name in re.findall(r"--!include (\S+) as (\S+)", one.read_text())
    }
    codes = {
        file.relative_to(LUA): "\n".join(code_of(file.read_text().splitlines())) for file in LUA.glob("lib/*/*.lua")
    }
    home = {name: FLOORS.index(Path(file).parts[1]) for name, file in told.items()}
    for file, code in codes.items():
        if file.as_posix() not in told.values():
            for names in re.findall(r"^local (?:function )?(\w+(?:, \w+)*)", code, re.MULTILINE):
                home |= dict.fromkeys(names.split(", "), FLOORS.index(file.parts[1]))
    upwards = [
        f"{file} uses {name}"
        for file, code in codes.items()
        for name in sorted(set(re.findall(r"(?<![.:\w'$])\w+(?=[(.\[])", code)) & set(home))
        if home[name] > FLOORS.index(file.parts[1])
    ]
    assert upwards == []
    assert {"whole", "counter_slot", "append_charges", "hold_acts", "decide"} <= set(home)
