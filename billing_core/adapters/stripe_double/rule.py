"""Rules: which parameters a request may have and must have, as Stripe's own library types them.

`stripe.params` is generated from Stripe's published API description; here its types are read at run time, so
that the double refuses what Stripe refuses: a parameter that nobody reads, a required one that is missing, a
number that is none. What the library lets a client say about the request itself (key, version, idempotency) is
no parameter.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from stripe import RequestOptions

from billing_core.adapters.stripe_double.answer import Json, invalid
from billing_core.adapters.stripe_double.form import Tree

_NO_PARAMETERS = frozenset(RequestOptions.__annotations__)
_UNIONS = (Union, types.UnionType)
_WRAPPERS = frozenset({"NotRequired", "Required"})
"""By name, because the library takes them from a package of backports."""

_NAMES = {"Mapping": Mapping, "StripeContext": object}
"""Names in inherited annotations that the module of a parameter type does not know."""

_TRUTH = {"true": True, "false": False}


def checked(params: type, tree: Tree) -> Json:
    """The parameters with numbers and truth values read.

    Raises: StripeError for an unknown, missing or ill-typed parameter.
    """
    for name in sorted(_required(params)):
        if name not in tree:
            raise invalid(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return _read_all(params, tree, place="")


def _read_all(params: type, tree: Tree, *, place: str) -> Json:
    known = _fields(params)
    read: Json = {}
    for name, value in tree.items():
        where = f"{place}[{name}]" if place else name
        if name not in known:
            raise invalid(f"Received unknown parameter: {where}", code="parameter_unknown", param=where)
        read[name] = _read(known[name], value, place=where)
    return read


def _read(kind: Any, value: Any, *, place: str) -> Any:
    """The value as the first of its possible types that takes it."""
    options = list(_options(kind))
    if isinstance(value, dict):
        tree: Tree = value  # pyright: ignore[reportUnknownVariableType]
        typed = [one for one in options if hasattr(one, "__required_keys__")]
        return _read_all(typed[0], tree, place=place) if typed else tree
    if not isinstance(value, str):
        return value
    if bool in options and value in _TRUTH:
        return _TRUTH[value]
    if str in options or any(get_origin(one) is list for one in options):
        return value
    if int in options:
        if value.lstrip("-").isdigit():
            return int(value)
        raise invalid(f"Invalid integer: {value}", code="parameter_invalid_integer", param=place)
    if bool in options:
        raise invalid(f"Invalid boolean: {value}", code="parameter_invalid_boolean", param=place)
    return value


def _options(kind: Any) -> Iterator[Any]:
    if get_origin(kind) in _UNIONS:
        for one in get_args(kind):
            yield from _options(one)
    elif getattr(get_origin(kind), "_name", "") in _WRAPPERS:
        yield from _options(get_args(kind)[0])
    else:
        yield kind


@cache
def _fields(params: type) -> dict[str, Any]:
    hints = get_type_hints(params, localns=_NAMES, include_extras=True)
    return {name: kind for name, kind in hints.items() if name not in _NO_PARAMETERS}


@cache
def _required(params: type) -> frozenset[str]:
    required: frozenset[str] = getattr(params, "__required_keys__", frozenset())
    return required - _NO_PARAMETERS
