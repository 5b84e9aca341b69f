"""What is tested is what is shipped: the installed wheel, with every file that the house needs inside."""

from __future__ import annotations

import os
import sysconfig
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import billing_core
import gateway
import lua
from billing_core.contract.shipped import shipped

ROOT = Path(__file__).resolve().parents[2]
TESTED = os.environ.get("TALLYGATE_TESTED", "tree")
PLACE = {"wheel": Path(sysconfig.get_path("purelib")), "tree": ROOT}[TESTED].resolve()
PACKAGES = {"gateway": gateway, "billing_core": billing_core, "lua": lua}


def data_files(folder: Path) -> set[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name for name in found if "__pycache__" not in name and not name.startswith("_config/")}


@pytest.mark.parametrize("name", PACKAGES)
def test_the_tests_import_the_product(name: str) -> None:
    """`make test` says that it tests the wheel; then nothing may come from the source tree."""
    folder = Path(PACKAGES[name].__path__[0]).resolve()
    assert folder == PLACE / name


@pytest.mark.parametrize("name", PACKAGES)
def test_the_product_has_every_file_of_the_package(name: str) -> None:
    """Scripts, SQL and type markers travel with the code."""
    assert data_files(PLACE / name) == data_files(ROOT / name)


def test_the_product_has_the_shipped_files() -> None:
    """Settings, catalogs and samples, byte by byte."""
    for path in (ROOT / "config").rglob("*"):
        if path.is_file():
            assert shipped(path.relative_to(ROOT / "config").as_posix()).read_bytes() == path.read_bytes()


def test_the_command_is_installed() -> None:
    """`pip install` gives `tallygate`."""
    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert TESTED == "tree" or scripts["tallygate"] == "gateway.command.main:main"
