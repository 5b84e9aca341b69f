"""A command finds its way in: what is told wins over the environment, and both over the data folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing_core.errors import ConfigurationError, Unauthenticated
from gateway.command.client.address import Addresses, publish_addresses
from gateway.command.client.door import Door, Told, find_door, require_root
from gateway.command.machine.keyring import Demo, Keyring, save_keyring

DEMO = Demo(tenant_id="t", operator_token="tgo_demo", customer_id="acme", key="tgk_x", feature="f")


def test_the_data_folder_of_a_running_up_is_enough(tmp_path: Path) -> None:
    """Its addresses, its root token, and its demo's operator token."""
    publish_addresses(tmp_path, Addresses(control_url="http://h:1", gateway_url="http://h:2"))
    save_keyring(tmp_path, Keyring(root_token="tgr_root", stripe_webhook_secret="w", demo=DEMO))
    assert find_door(Told(), {"TALLYGATE_UP_DATA_DIR": str(tmp_path)}) == Door(
        control_url="http://h:1", gateway_url="http://h:2", operator_token="tgo_demo", root_token="tgr_root"
    )


def test_what_is_told_wins(tmp_path: Path) -> None:
    """Over files and defaults."""
    save_keyring(tmp_path, Keyring(root_token="tgr_root", stripe_webhook_secret="w", demo=DEMO))
    told = Told(url="http://a", gateway_url="http://b", token="t", root_token="r", data_dir=str(tmp_path))
    assert find_door(told, {}) == Door(
        control_url="http://a", gateway_url="http://b", operator_token="t", root_token="r"
    )


def test_an_empty_folder_leaves_the_defaults_and_makes_nothing(tmp_path: Path) -> None:
    """Looking for a token must not make one."""
    door = find_door(Told(data_dir=str(tmp_path / "none")), {})
    assert door == Door(
        control_url="http://127.0.0.1:8090", gateway_url="http://127.0.0.1:8080", operator_token="", root_token=""
    )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unauthenticated, match="start `tallygate up` on this machine, or set --root-token"):
        require_root(door)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """One line, with its path."""
    (tmp_path / "addresses.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"addresses\.json"):
        find_door(Told(data_dir=str(tmp_path)), {})
