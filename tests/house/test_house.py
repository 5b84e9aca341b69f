"""The style of the house, checked: what nobody checks drifts.

What is allowed beyond a bound stands in `ratchet.toml` with its reason, and may only shrink: an entry that is no
longer needed fails the test too.
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("gateway", "billing_core", "lua")
RATCHET = tomllib.loads((Path(__file__).parent / "ratchet.toml").read_text("utf-8"))

FILE_LINES = 400
FUNCTION_LINES = 70
FOLDER_FILES = 10
BANNED_WORDS = {"utils", "util", "helpers", "helper", "common", "manager", "service", "base", "misc"}
VERB_FOLDER = "billing_core/flows"


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


TREES = {short(path): ast.parse(path.read_text("utf-8")) for path in sources()}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def against_ratchet(kind: str, found: dict[str, int], bound: int) -> list[str]:
    """What is over its bound, and which exception is larger than needed."""
    allowed: dict[str, int] = RATCHET.get(kind, {})
    over = [
        f"{name}: {size} > {allowed.get(name, bound)}"
        for name, size in found.items()
        if size > allowed.get(name, bound)
    ]
    slack = [
        f"{name}: allowed {size}, is {found.get(name, 0)}"
        for name, size in allowed.items()
        if found.get(name, 0) < size
    ]
    return over + slack


def test_there_is_a_house_to_check() -> None:
    """A check that sees no file would pass for ever."""
    assert len(TREES) > 60


def test_files_stay_short() -> None:
    """400 lines at most; about 300 is meant."""
    lines = {short(path): len(path.read_text("utf-8").splitlines()) for path in sources()}
    lines |= {short(path): len(path.read_text("utf-8").splitlines()) for path in (ROOT / "lua").rglob("*.lua")}
    assert against_ratchet("file_lines", lines, FILE_LINES) == []


def test_functions_stay_short() -> None:
    """70 lines at most; about 40 is meant."""
    sizes = {
        f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for name, tree in TREES.items()
        for node in functions(tree)
    }
    assert against_ratchet("function_lines", sizes, FUNCTION_LINES) == []


def test_folders_hold_ten_modules_or_fewer() -> None:
    """A folder with more is two folders."""
    counts: dict[str, int] = {}
    for path in sources():
        if path.name != "__init__.py":
            counts[short(path.parent)] = counts.get(short(path.parent), 0) + 1
    assert against_ratchet("folder_files", counts, FOLDER_FILES) == []


def test_folders_are_three_levels_deep_at_most() -> None:
    """Deeper nesting hides things."""
    assert [short(path) for path in sources() if len(path.relative_to(ROOT).parts) > 4] == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    """A noun of the domain, or it has no place."""
    parts = {part for path in sources() for part in re.split(r"[/_.]", short(path))}
    assert parts & BANNED_WORDS == set()


def test_every_module_and_public_thing_says_what_it_is() -> None:
    """Docstrings on modules, public classes and public functions."""
    silent: list[str] = []
    for name, tree in TREES.items():
        if not ast.get_docstring(tree):
            silent.append(name)
        for node in tree.body:
            documented = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            if documented and not node.name.startswith("_") and not ast.get_docstring(node):
                silent.append(f"{name}:{node.name}")
    assert silent == []


def test_imports_stand_at_the_top() -> None:
    """No import inside a function: a cycle is a wall in the wrong place."""
    hidden = [
        f"{name}:{node.name}"
        for name, tree in TREES.items()
        for node in functions(tree)
        for inner in ast.walk(node)
        if isinstance(inner, (ast.Import, ast.ImportFrom))
    ]
    assert hidden == []


def test_laws_are_held_by_invariant_not_by_assert() -> None:
    """`assert` vanishes under -O."""
    assert [
        name for name, tree in TREES.items() if any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    ] == []


def test_parameters_after_the_second_are_named_at_the_call() -> None:
    """Keyword-only after the second, and six at most in all (`self` and `cls` not counted)."""
    loose: list[str] = []
    for name, tree in TREES.items():
        for node in functions(tree):
            places = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            if len(places) > 2 or len(places) + len(node.args.kwonlyargs) > 8:
                loose.append(f"{name}:{node.name}")
    assert sorted(set(loose) - set(RATCHET.get("parameters", {}))) == []
    assert sorted(set(RATCHET.get("parameters", {})) - set(loose)) == []


def test_no_float_touches_money() -> None:
    """No float literal and no `float(` in the domain and its contract."""
    rooms = (
        "catalog",
        "metering",
        "pricing",
        "ledger",
        "wallets",
        "subscriptions",
        "invoices",
        "payments",
        "revenue",
        "values",
    )
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if name.startswith(tuple(f"billing_core/{room}/" for room in rooms))
        for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float")
    ]
    assert found == []


def test_the_gateway_and_the_core_do_not_log_and_pass_over() -> None:
    """No handler catches everything to go on in silence."""
    swallowed = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
        )
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert sorted(set(swallowed) - set(RATCHET.get("catch_all", {}))) == []


@pytest.mark.parametrize("word", ["TODO", "FIXME", "XXX", "HACK"])
def test_nothing_is_left_for_later(word: str) -> None:
    """What is not done is an issue, not a comment."""
    files = [*sources(), *(ROOT / "lua").rglob("*.lua"), *(ROOT / "billing_core/sql").rglob("*.sql")]
    assert [short(path) for path in files if re.search(rf"\b{word}\b", path.read_text("utf-8"))] == []


def test_the_top_level_holds_only_what_belongs_there() -> None:
    """A new room is a decision, not an accident."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {line.split("/")[0] for line in listed if line}
    allowed = {
        "pyproject.toml",
        "README.md",
        "gateway",
        "billing_core",
        "lua",
        "config",
        "tests",
        "bench",
        "Makefile",
        "LICENSE",
        "CHANGELOG.md",
    }
    assert {name for name in top if not name.startswith(".")} - allowed == set()


def test_no_file_names_a_package_host() -> None:
    """The lock has hashes and no addresses."""
    locks = sorted((ROOT / "config/requirements").glob("*.txt"))
    assert len(locks) == 2
    assert [short(path) for path in locks if re.search(r"https?://", path.read_text("utf-8"))] == []
    assert [short(path) for path in locks if "--hash=sha256:" not in path.read_text("utf-8")] == []
