"""Prometheus text of many workers, merged into one page.

Workers share a port, so a scrape reaches one of them by chance; it asks the others over their unix sockets and
tells all. Every series gets the label `worker`, so that none hides another; a family's help and type are told once
and its series stand together, as the format demands.

Source: Prometheus text exposition format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class _Family(msgspec.Struct, kw_only=True):
    """One metric: its comments, and the series of all workers."""

    comments: list[str]
    series: list[str]


def merge(pages: Mapping[str, str]) -> str:
    """One page of the pages of all workers, keyed by the worker's name."""
    families: dict[str, _Family] = {}
    for worker in sorted(pages):
        _add(families, pages[worker], worker=worker)
    lines = [line for family in families.values() for line in (*family.comments, *family.series)]
    return "\n".join(lines) + "\n" if lines else ""


def _add(families: dict[str, _Family], page: str, *, worker: str) -> None:
    family: _Family | None = None
    for line in page.splitlines():
        if line.startswith("# "):
            name = line.split(" ", 3)[2]
            known = families.setdefault(name, _Family(comments=[], series=[]))
            if line.split(" ", 2)[1] == "HELP" or family is not known:
                family = known
            if line not in known.comments:
                known.comments.append(line)
        elif line:
            family = family or families.setdefault("", _Family(comments=[], series=[]))
            family.series.append(_labelled(line, worker))


def _labelled(line: str, worker: str) -> str:
    """`name{a="b"} 1` -> `name{worker="0",a="b"} 1`."""
    name, brace, rest = line.partition("{")
    if brace:
        return f'{name}{{worker="{worker}",{rest}'
    name, _, value = line.partition(" ")
    return f'{name}{{worker="{worker}"}} {value}'
