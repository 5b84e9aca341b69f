"""Paths: where in a customer a caller stands, and so whose budgets a decision draws on.

A path is text of at most four segments `kind:name`, kinds in the order team, project, user, key, each left out or
given once: `team:ml/project:chat/key:k1`. Every prefix of it is a **node**, a level of budget below the customer:
`team:ml`, `team:ml/project:chat`, ... One act is charged to the customer and to every node of its path, or to none.
The customer itself is the node `""`, which answers call `customer`.

Worked example: `team:ml/user:bob` has the nodes `team:ml` and `team:ml/user:bob`. A `user:bob` below another team
is another node with a budget of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import accumulate

from billing_core.errors import InvalidInput
from billing_core.values.ids import is_code


class Level(StrEnum):
    """The kinds of nodes below a customer, from the outside in."""

    TEAM = "team"
    PROJECT = "project"
    USER = "user"
    KEY = "key"


CUSTOMER_LEVEL = "customer"
"""What answers call the node that is the customer itself."""

_ORDER = {level.value: place for place, level in enumerate(Level)}
_RULE = "segments like team:ml, in the order team, project, user, key, each at most once, separated by /"


def parse_path(text: str, *, field: str = "path") -> tuple[str, ...]:
    """The segments of a path; none for "".

    Raises: InvalidInput naming field and rule.
    """
    return check_segments(text.split("/"), field=field) if text else ()


def check_segments(segments: Sequence[str], *, field: str = "path") -> tuple[str, ...]:
    """The segments, if they make a path.

    Raises: InvalidInput naming field and rule.
    """
    before = -1
    for segment in segments:
        kind, _, name = segment.partition(":")
        place = _ORDER.get(kind, -1)
        if not is_code(name) or place < 0:
            raise InvalidInput(f"{segment[:80]!r} is not a segment: {_RULE}", field=field)
        if place <= before:
            raise InvalidInput(f"{segment!r} stands in the wrong place: {_RULE}", field=field)
        before = place
    return tuple(segments)


def nodes_of(segments: Sequence[str]) -> tuple[str, ...]:
    """The nodes below the customer, from the outside in."""
    return tuple(accumulate(segments, "{}/{}".format))


def level_of(node: str) -> Level:
    """Of which kind a node is: that of its last segment. The node must be one of `nodes_of`."""
    return Level(node.rsplit("/", 1)[-1].partition(":")[0])
