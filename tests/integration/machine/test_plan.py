"""What is wrong with the settings is said in one line, before anything starts."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from billing_core.errors import ConfigurationError
from gateway.command.machine.endpoint import Endpoint
from gateway.command.machine.keyring import Demo, open_keyring, own_receipt_key, save_keyring
from gateway.command.machine.plan import make_plan
from gateway.command.settings import UpSettings, data_folder
from gateway.receipt import open_signer


def environ(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TALLYGATE_")} | more


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[up]\ngateway_workers = 0", r"tallygate.toml: \[up\] gateway_workers: Expected `int` >= 1"),
        ("[up]\nspeed = 1", r"tallygate.toml: \[up\] speed: unknown key"),
        ("[gateway]\nport = 99999", r"tallygate.toml: \[gateway\] port: Expected `int` <= 65535"),
        ("[billing]\nport = 'x'", r"tallygate.toml: \[billing\] port: Expected `int`, got `str`"),
        ("[biling]\nport = 1", r"tallygate.toml: \[biling\]: unknown section"),
        ("[up", r"tallygate.toml: not a TOML document"),
    ],
)
def test_a_fault_in_the_file_names_section_key_and_rule(tmp_path, text, line):
    """In every section, also in that of the side that the command may not look into."""
    file = tmp_path / "tallygate.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=line):
        make_plan(file, environ())


def test_the_environment_wins_over_the_file(tmp_path):
    """And children get the resolved settings of both sides."""
    file = tmp_path / "tallygate.toml"
    file.write_text("[gateway]\nport = 8081\n[billing]\nport = 8091\nmax_body_bytes = 5\n")
    plan = make_plan(file, environ(TALLYGATE_BILLING_PORT="8092"))
    assert (plan.gateway.port, plan.billing.port) == (8081, 8092)
    assert plan.environment["TALLYGATE_BILLING_MAX_BODY_BYTES"] == "5"
    assert plan.environment["TALLYGATE_GATEWAY_PORT"] == "8081"


def test_other_ports_must_be_free_too_where_there_are_any():
    """They say no readiness over HTTP, but two processes cannot both have one."""
    plan = make_plan(None, environ())
    assert (plan.grpc, plan.places()) == (None, plan.endpoints())
    plan = make_plan(None, environ(TALLYGATE_GATEWAY_GRPC_PORT="8081"))
    assert [place.key for place in plan.places() if place not in plan.endpoints()] == ["gateway.grpc_port"]
    plan = make_plan(None, environ(TALLYGATE_GATEWAY_PROXY_PORT="8082"))
    assert [place.key for place in plan.places() if place not in plan.endpoints()] == ["gateway.proxy_port"]


def test_a_real_stripe_key_leaves_the_double_out(tmp_path):
    """The double is wired only where no real account is."""
    assert make_plan(None, environ()).stripe is not None
    plan = make_plan(None, environ(TALLYGATE_BILLING_STRIPE_API_KEY="sk_live_x"))
    assert plan.stripe is None
    assert plan.environment["TALLYGATE_BILLING_STRIPE_API_BASE"] == ""


def test_a_busy_port_names_the_setting_that_moves_it():
    """Even where the other process would share it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        endpoint = Endpoint(name="gateway", host="127.0.0.1", port=port, key="gateway.port")
        with pytest.raises(ConfigurationError) as refusal:
            endpoint.refuse_busy()
    assert refusal.value.detail == (
        f"gateway: port {port} on 127.0.0.1 is in use by another process; set gateway.port"
    )
    endpoint.refuse_busy()
    assert not endpoint.ready()


def test_an_address_that_is_not_ours_is_one_line():
    """Not only a busy port can be wrong."""
    with pytest.raises(ConfigurationError, match="cannot be had"):
        Endpoint(name="gateway", host="192.0.2.1", port=8080, key="gateway.port").refuse_busy()


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("10.0.0.7", "http://10.0.0.7:80")],
)
def test_a_printed_address_is_one_that_a_client_can_use(host, url):
    """Nobody can connect to "all networks"."""
    assert Endpoint(name="gateway", host=host, port=80, key="gateway.port").url == url


def test_a_second_start_finds_its_secrets_again(tmp_path):
    """Nobody else may read them."""
    keyring = open_keyring(tmp_path)
    assert open_keyring(tmp_path) == keyring
    assert stat.S_IMODE((tmp_path / "keyring.json").stat().st_mode) == 0o600
    demo = Demo(tenant_id="t", operator_token="tgo_x", customer_id="c", key="tgk_x", feature="f")
    save_keyring(tmp_path, type(keyring)(root_token="a", stripe_webhook_secret="b", demo=demo))
    assert open_keyring(tmp_path).demo == demo
    assert open_keyring(tmp_path, root_token="mine").root_token == "mine"
    assert open_keyring(tmp_path).root_token == "mine"


def test_a_second_start_signs_with_the_same_key(tmp_path):
    """Receipts of before stay good; nobody else may read it."""
    file = own_receipt_key(tmp_path)
    before = file.read_bytes()
    assert own_receipt_key(tmp_path).read_bytes() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert open_signer(str(file)) is not None


def test_a_spoilt_keyring_is_one_line(tmp_path):
    """Never replaced in silence: its secrets are in use."""
    (tmp_path / "keyring.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"keyring\.json"):
        open_keyring(tmp_path)


def test_the_data_folder_is_the_one_here_or_the_users_own_unless_told(tmp_path, monkeypatch):
    """A checkout has its own folder; elsewhere XDG's place for data is used."""
    monkeypatch.chdir(tmp_path)
    assert data_folder(UpSettings(), {"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "tallygate"
    assert data_folder(UpSettings(), {}) == Path.home() / ".local" / "share" / "tallygate"
    (tmp_path / ".tallygate").mkdir()
    assert data_folder(UpSettings(), {}) == tmp_path / ".tallygate"
    assert data_folder(UpSettings(data_dir=str(tmp_path)), {}) == tmp_path
