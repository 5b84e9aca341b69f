"""Paths with names in them, each name made safe, so that no name can lead to another path."""

from __future__ import annotations

from urllib.parse import quote

from billing_core.errors import InvalidInput


def route(template: str, *names: str) -> str:
    """The template's `{}` filled in order. Example: `route("/v1/customers/{}/keys", "acme")`.

    Raises: InvalidInput where a name is empty or a step of a path.
    """
    for name in names:
        if name in ("", ".", ".."):
            raise InvalidInput(f"{name!r} is no name", field="path")
    return template.format(*(quote(name, safe="") for name in names))
