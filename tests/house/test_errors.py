"""The tree of failures is complete: drawn, coded, and told over HTTP."""

from __future__ import annotations

import inspect
import re

import pytest

from billing_core import errors
from billing_core.contract.problem import problem_of
from billing_core.errors import Failure

LEAVES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Failure) and kind is not Failure
]


def test_the_drawn_tree_names_every_failure_with_its_status() -> None:
    """The docstring is the map; a failure that it does not show is lost."""
    drawn = {name: int(status) for name, status in re.findall(r"── (\w+)\s+(\d{3})", errors.__doc__ or "")}
    assert drawn == {kind.__name__: kind.status for kind in LEAVES}


def test_codes_are_stable_words_and_each_stands_for_one_failure() -> None:
    """A caller may switch on the code."""
    codes = [kind.code for kind in LEAVES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@pytest.mark.parametrize("kind", LEAVES)
def test_every_failure_becomes_a_problem(kind: type[Failure]) -> None:
    """Status, code, field and whether a retry is safe travel in the body."""
    problem = problem_of(kind("what happened", field="where"))
    assert (problem.status, problem.code, problem.field) == (kind.status, kind.code, "where")
    assert problem.retry_is_safe == kind.retry_is_safe
    assert problem.detail == "what happened"
