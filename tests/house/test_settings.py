"""Every setting is documented, with the default that the code has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from billing_core.settings import BillingSettings
from gateway.command.settings import UpSettings
from gateway.settings import GatewaySettings

FILE = Path(__file__).resolve().parents[2] / "config" / "tallygate.toml"
SECTIONS = {"up": UpSettings, "gateway": GatewaySettings, "billing": BillingSettings}


def test_the_shipped_file_has_just_the_sections_of_the_house() -> None:
    """One section per process."""
    assert set(tomllib.loads(FILE.read_text("utf-8"))) == set(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_shipped_file_states_every_key_with_its_default(section: str) -> None:
    """Whoever reads the file knows what the code does without it."""
    stated = tomllib.loads(FILE.read_text("utf-8"))[section]
    assert stated == msgspec.to_builtins(SECTIONS[section]())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_comment_above_it(section: str) -> None:
    """A key without a word of what it means is not documented."""
    text = FILE.read_text("utf-8")
    body = re.split(rf"(?m)^\[{section}\]$", text)[1]
    body = re.split(r"(?m)^\[", body)[0]
    documented = re.findall(r"(?m)^#.*\n([a-z_0-9]+) = ", body)
    assert sorted(documented) == sorted(field.name for field in msgspec.structs.fields(SECTIONS[section]))
