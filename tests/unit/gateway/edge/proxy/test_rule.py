"""Routes files: the shipped one loads, and one that contradicts itself does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from billing_core.contract.shipped import shipped
from billing_core.errors import ConfigurationError
from gateway.edge.proxy.rule import load_routes

UPSTREAM = '[upstreams.a]\nendpoints = [{ url = "http://127.0.0.1:9000" }]\n'
ROUTE = '[[routes]]\nname = "r"\npath = "/{rest...}"\nupstream = "a"\n'


def charge(words: str) -> str:
    return f'charges = [{{ feature = "calls", {words} }}]\n'


def test_the_shipped_file_loads() -> None:
    """It is what people start from."""
    told = load_routes(Path(str(shipped("proxies/routes.toml"))), {})
    assert [route.name for route in told.routes] == ["health", "chat", "calls"]


def test_a_secret_comes_from_the_environment(tmp_path: Path) -> None:
    """It need not stand in the file."""
    file = tmp_path / "routes.toml"
    file.write_text(UPSTREAM + ROUTE + 'set_request_headers = { Authorization = "Bearer ${KEY}" }\n')
    (route,) = load_routes(file, {"KEY": "sk"}).routes
    assert route.set_request_headers == {"Authorization": "Bearer sk"}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "routes"),
        ("routes = []\n" + UPSTREAM, "length >= 1"),
        (UPSTREAM + ROUTE + "surprise = 1\n", "unknown field `surprise`"),
        (UPSTREAM + ROUTE.replace('"a"', '"b"'), "there is no upstream 'b'"),
        (UPSTREAM + ROUTE + ROUTE, "two routes have this name"),
        (UPSTREAM + ROUTE.replace("/{rest...}", "x"), "a path begins with a slash"),
        (UPSTREAM.replace("http://127.0.0.1:9000", "ftp://x") + ROUTE, "'ftp://x' is no address"),
        (UPSTREAM.replace(":9000", ":9000/path") + ROUTE, "is no address"),
        (UPSTREAM + ROUTE + 'mode = "peek"\n', "mode must be hold or consume"),
        (UPSTREAM + ROUTE + charge('quantity = { units = 1, header = "X" }'), "is one of units, header"),
        (UPSTREAM + ROUTE + charge("quantity = {}"), "is one of units, header"),
        (UPSTREAM + ROUTE + charge("settle = {}"), "is settled by one thing"),
        (UPSTREAM + ROUTE + charge("settle = { bytes = 1, seconds = 1 }"), "is settled by one thing"),
        (UPSTREAM + ROUTE + 'mode = "consume"\n' + charge("settle = { bytes = 1 }"), "needs mode hold"),
        (UPSTREAM + ROUTE + 'charges = [{ feature = "a" }, { feature = "a" }]\n', "may be charged once"),
        (UPSTREAM + ROUTE + 'on_upstream_loss = "drain"\n', "cannot be drained"),
        (UPSTREAM + ROUTE + 'free_statuses = ["abc"]\n', "matching regex"),
        (UPSTREAM + ROUTE + 'set_request_headers = { "X\\r\\nY" = "1" }\n', "matching regex"),
        (UPSTREAM + ROUTE + 'set_request_headers = { X = "1\\r\\nY: 2" }\n', "matching regex"),
        (UPSTREAM + ROUTE + 'set_request_headers = { X = "${NOWHERE}" }\n', "the environment has no NOWHERE"),
        ("routes = [", "not a TOML document"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(tmp_path: Path, text: str, rule: str) -> None:
    """It names the place."""
    file = tmp_path / "routes.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_routes(file, {})
    assert rule in caught.value.detail
    assert caught.value.detail.startswith(str(file))
    assert "\n" not in caught.value.detail


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_routes(tmp_path / "nowhere.toml", {})
