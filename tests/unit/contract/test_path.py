"""Paths are read strictly, and every prefix is a node."""

from __future__ import annotations

import pytest

from billing_core.contract.path import Level, level_of, nodes_of, parse_path
from billing_core.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("", ()),
        ("team:ml", ("team:ml",)),
        ("key:k1", ("key:k1",)),
        ("project:chat/key:k1", ("project:chat", "project:chat/key:k1")),
        ("team:ml/user:bob", ("team:ml", "team:ml/user:bob")),
        (
            "team:a/project:b/user:c/key:d",
            ("team:a", "team:a/project:b", "team:a/project:b/user:c", "team:a/project:b/user:c/key:d"),
        ),
    ],
)
def test_a_path_is_its_prefixes(text: str, nodes: tuple[str, ...]) -> None:
    """Each kind may be left out."""
    assert nodes_of(parse_path(text)) == nodes
    assert "/".join(parse_path(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "ml",
        "team:",
        ":ml",
        "group:ml",
        "Team:ml",
        "team:m l",
        "team:*",
        "team:a:b",
        "team:ml/",
        "/team:ml",
        "team:ml//key:k",
        "key:k/team:ml",
        "team:a/team:b",
        "team:a/project:b/user:c/key:d/key:e",
        "team:-x",
        "team:" + "x" * 65,
        "team:ml\n",
    ],
)
def test_what_is_no_path_is_refused_by_field(text: str) -> None:
    """Unknown kinds, wrong order, twice the same kind, names that are no codes."""
    with pytest.raises(InvalidInput) as caught:
        parse_path(text)
    assert caught.value.field == "path"


def test_a_node_is_of_the_kind_of_its_last_segment() -> None:
    """Which default counts for it."""
    assert level_of("team:ml/project:chat") is Level.PROJECT
    assert level_of("key:k") is Level.KEY
