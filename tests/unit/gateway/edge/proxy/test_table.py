"""Which path is which: one reading, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.lane.head import Malformed
from gateway.edge.proxy.table import pattern_of, plain_path


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("/v1/chat", ["/v1/chat"], ["/v1/chat/", "/v1/chats", "/v1", "/v1/chat/x"]),
        ("/v1/{model}/x", ["/v1/a/x", "/v1/a.b/x"], ["/v1//x", "/v1/a/b/x", "/v1/x"]),
        ("/v1/{rest...}", ["/v1", "/v1/", "/v1/a/b"], ["/v2", "/v1a"]),
        ("/{rest...}", ["/", "/a/b"], []),
        ("/", ["/"], ["/a"]),
        ("/a.b", ["/a.b"], ["/axb"]),
    ],
)
def test_a_template_matches_whole_segments(template: str, matching: list[str], others: list[str]) -> None:
    """A variable is one of them, and not none."""
    pattern = pattern_of(template)
    assert [path for path in matching if pattern.fullmatch(path) is None] == []
    assert [path for path in others if pattern.fullmatch(path) is not None] == []


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("/v1/chat", "/v1/chat"),
        ("/%76%31/c%68at", "/v1/chat"),
        ("/a%e2%82%ac", "/a%E2%82%AC"),
        ("/a/", "/a/"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a...b", "/a...b"),
        ("/a;b=c", "/a;b=c"),
    ],
)
def test_what_needs_no_encoding_has_none(path: str, plain: str) -> None:
    """As it is for the upstream."""
    assert plain_path(path) == plain


TWO_WAYS = [
    *("", "*", "a", "//a", "/a//b", "/a/../b", "/..", "/.", "/a/%2e%2E/b", "/a/.%2e", "/a%2fb", "/a%5Cb", "/a\\b"),
    *("/a%00", "/a%25b", "/a%", "/a%4", "/a%zz", "/a b", "/\u00e9", "/a%7f", '/a"', "/a<"),
]


@pytest.mark.parametrize("path", TWO_WAYS)
def test_what_servers_read_in_different_ways_is_refused(path: str) -> None:
    """Else the cheaper route would be taken for the dearer path."""
    with pytest.raises(Malformed):
        plain_path(path)


@given(st.text(alphabet="/.%2eEfF5cab\\", max_size=12))
def test_a_plain_path_stays_as_it_is(path: str) -> None:
    """Reading it twice is reading it once, and no dots are left in it."""
    try:
        plain = plain_path(path)
    except Malformed:
        return
    assert plain_path(plain) == plain
    assert {".", ".."}.isdisjoint(plain.split("/"))
