"""The loader: what it makes of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lua.library import ScriptError
from lua.loader import SCRIPTS, assemble, load_library, parse_script

HEAD = "#!lua\n-- act: do it.\n-- KEYS\n-- ARGV\n-- RETURNS\n--   one                  1\n-- ERRORS\n"
TAIL = "\nif #KEYS ~= 0 then return redis.error_reply('INVALID keys') end\n"
ERRORS = "--   INVALID keys         there are some\n-- INVARIANT\n--   one is one\n"
SOURCE = HEAD + ERRORS + "--!include lib/one.lua as kept\n" + TAIL + "-- why\nreturn kept.one\n"
ONE = "-- One.\nlocal one = 1\n\nreturn { one = one }\n"


def write_house(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return folder


def test_a_library_may_keep_its_names_to_itself() -> None:
    """`as kept`: only what it returns is known, by that name; comments and blank lines stay behind."""
    script = parse_script("act", SOURCE, libraries={"lib/one.lua": ONE})
    assert script.text.splitlines() == [
        "#!lua",
        "local kept = (function()",
        "local one = 1",
        "return { one = one }",
        "end)()",
        "if #KEYS ~= 0 then return redis.error_reply('INVALID keys') end",
        "return kept.one",
    ]
    assert script.body.splitlines() == script.text.splitlines()[-2:]


def test_scripts_are_found_in_their_folders(tmp_path: Path) -> None:
    """request and upkeep, by the name of the file."""
    files = {
        "lib/one.lua": ONE,
        "request/act.lua": SOURCE,
        "upkeep/mend.lua": SOURCE.replace("-- act:", "-- mend:"),
    }
    assert sorted(load_library(write_house(tmp_path, files)).scripts) == ["act", "mend"]


def test_two_scripts_of_one_name_do_not_load(tmp_path: Path) -> None:
    """Else one of them would hide the other."""
    files = {"lib/one.lua": ONE, "request/act.lua": SOURCE, "upkeep/act.lua": SOURCE}
    with pytest.raises(ScriptError, match="two scripts of one name"):
        load_library(write_house(tmp_path, files))


def test_a_library_can_be_driven_alone() -> None:
    """For tests of arithmetic that no script shows."""
    assert assemble("--!include lib/one.lua\nreturn one", {"lib/one.lua": "local one = 1\n"}).endswith(
        "return one\n"
    )
    with pytest.raises(ScriptError, match="no such library"):
        assemble("--!include lib/none.lua", {})


def test_the_acts_of_the_house_are_these() -> None:
    """As the contract of both sides names them, and the clock."""
    assert set(SCRIPTS) == {
        *("consume", "peek", "record", "hold", "extend", "part", "settle", "release"),
        *("ingest", "wallet_read", "usage_read", "grant", "lapse", "project", "sweep", "clock"),
    }


def test_a_decision_has_thirteen_words_and_eight_for_each_charge() -> None:
    """Whoever reads replies counts on it."""
    for name in ("consume", "peek", "hold", "record", "extend"):
        script = SCRIPTS[name]
        assert (len(script.reply_names), len(script.repeated_reply_names)) == (21, 8)
