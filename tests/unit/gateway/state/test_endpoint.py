"""Redis URLs, understood or refused."""

from __future__ import annotations

import pytest

from billing_core.errors import ConfigurationError
from gateway.state.endpoint import Endpoint, endpoint_of, endpoints_of


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://127.0.0.1", Endpoint(host="127.0.0.1")),
        ("redis://h:7000/3", Endpoint(host="h", port=7000, database=3)),
        ("redis://:secret@h", Endpoint(host="h", password="secret")),
        ("redis://me:p%40ss@[::1]:1/", Endpoint(host="::1", port=1, user="me", password="p@ss")),
        ("unix:///run/v.sock", Endpoint(path="/run/v.sock")),
        ("unix://me:pw@/run/v.sock?db=2", Endpoint(path="/run/v.sock", database=2, user="me", password="pw")),
    ],
)
def test_a_url_names_an_endpoint(url: str, endpoint: Endpoint) -> None:
    """TCP and unix sockets, with and without a user."""
    assert endpoint_of(url) == endpoint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://h",
        "rediss://h",
        "redis://",
        "redis://h:x",
        "redis://h/x",
        "unix://",
        "unix:///s?db=-1",
        "unix:///s?a=1",
    ],
)
def test_what_is_not_understood_is_refused_at_start(url: str) -> None:
    """One line that names the key."""
    with pytest.raises(ConfigurationError, match="redis_url"):
        endpoint_of(url)


def test_a_url_names_nodes_of_a_cluster() -> None:
    """All with one user; a single server is a list of one."""
    assert endpoints_of("redis+cluster://u:p%40@a:1,[::1]:2") == (
        Endpoint(host="a", port=1, user="u", password="p@"),
        Endpoint(host="::1", port=2, user="u", password="p@"),
    )
    assert endpoints_of("redis://a:1") == (Endpoint(host="a", port=1),)


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://a", "redis+cluster://a:1,", "redis+cluster://a:0"]
)
def test_a_node_without_an_address_is_refused(url: str) -> None:
    """Every node of the list has host and port."""
    with pytest.raises(ConfigurationError, match="is not host:port of a cluster's node"):
        endpoints_of(url)


def test_a_connection_begins_with_who_we_are() -> None:
    """AUTH before SELECT; neither where it is not needed."""
    assert Endpoint(host="h").greeting() == []
    assert Endpoint(host="h", password="p", database=2).greeting() == [("AUTH", "p"), ("SELECT", "2")]
    assert Endpoint(host="h", user="u", password="p").greeting() == [("AUTH", "u", "p")]
