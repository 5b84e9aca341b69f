"""Settings: one line for every fault, and nothing misspelt passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from billing_core.contract.configuration import environment_of, load
from billing_core.errors import ConfigurationError


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    loud: bool = False


def written(folder: Path, text: str) -> Path:
    file = folder / "tallygate.toml"
    file.write_text(text, "utf-8")
    return file


def test_defaults_stand_where_nothing_is_said() -> None:
    """No file, no environment: the struct's own values."""
    assert load("gateway", Sample, file=None, environ={}) == Sample()


def test_the_environment_beats_the_file(tmp_path: Path) -> None:
    """A single key is overridden; the others stay."""
    file = written(tmp_path, '[gateway]\nport = 1\nhost = "::1"\n[up]\n')
    found = load(
        "gateway", Sample, file=file, environ={"TALLYGATE_GATEWAY_PORT": "2", "TALLYGATE_GATEWAY_LOUD": "true"}
    )
    assert found == Sample(port=2, host="::1", loud=True)


def test_settings_survive_the_way_to_a_child_process() -> None:
    """What the supervisor hands on is what the child reads."""
    given = Sample(port=9, loud=True, host="h")
    assert load("gateway", Sample, file=None, environ=environment_of("gateway", given)) == given


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[gateway]\nprot = 1\n", r"\[gateway\] prot: unknown key"),
        ("[gateways]\nport = 1\n", r"\[gateways\]: unknown section"),
        ("[gateway]\nport = 70000\n", r"\[gateway\] port: .*65535"),
        ('[gateway]\nport = "many"\n', r"\[gateway\] port: "),
        ("gateway = 1\n", r"\[gateway\]: must be a table"),
        ("[gateway\n", "not a TOML document"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, text: str, fault: str) -> None:
    """The line names the file, the key and the rule."""
    file = written(tmp_path, text)
    with pytest.raises(ConfigurationError, match=fault) as caught:
        load("gateway", Sample, file=file, environ={})
    assert str(file) in caught.value.detail
    assert "\n" not in caught.value.detail


def test_a_file_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    """No traceback for a misspelt path."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load("gateway", Sample, file=tmp_path / "nowhere.toml", environ={})


def test_a_broken_environment_names_the_variable() -> None:
    """The operator sees which variable to mend."""
    with pytest.raises(ConfigurationError, match="TALLYGATE_GATEWAY_PORT"):
        load("gateway", Sample, file=None, environ={"TALLYGATE_GATEWAY_PORT": "x"})
