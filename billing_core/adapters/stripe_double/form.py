"""Stripe's forms: `metadata[order]=6&expand[]=customer` becomes a tree of words.

Keys in brackets nest; `[]` and numbers make lists. Every leaf is text, because a form knows no other; what is a
number or a truth value is told by the parameter's own type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Tree = dict[str, Any]

_KEY = re.compile(r"\A([^\[\]]+)((?:\[[^\[\]]*\])*)\Z")
_PART = re.compile(r"\[([^\[\]]*)\]")


def tree_of(pairs: Iterable[tuple[str, str]]) -> Tree:
    """The pairs of a form as a tree; lists are dicts by index until the end."""
    root: Tree = {}
    for key, value in pairs:
        found = _KEY.match(key)
        path = [found[1], *_PART.findall(found[2])] if found else [key]
        _put(root, path, value=value)
    return {key: _settled(value) for key, value in root.items()}


def _put(branch: Tree, path: list[str], *, value: str) -> None:
    for step, following in zip(path, [*path[1:], None], strict=True):
        name = step or str(len(branch))
        if following is None:
            branch[name] = value
        else:
            inner = branch.setdefault(name, {})
            if not isinstance(inner, dict):
                branch[name] = inner = {}
            branch = inner  # pyright: ignore[reportUnknownVariableType]


def _settled(value: Any) -> Any:
    """Dicts whose keys are 0, 1, 2 and so on are lists."""
    if not isinstance(value, dict):
        return value
    inner: Tree = {key: _settled(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    is_list = bool(inner) and list(inner) == [str(index) for index in range(len(inner))]
    return list(inner.values()) if is_list else inner
