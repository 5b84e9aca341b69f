"""A deadline begins when the request came, and one that is over is not begun."""

from __future__ import annotations

import math
import time

import pytest

from billing_core.errors import Unavailable
from gateway.admission.deadline import Deadline, deadline_since


def test_what_waited_has_so_much_less() -> None:
    """Of ten seconds one is gone already."""
    since_s = time.perf_counter() - 1
    deadline = deadline_since(since_s, 10_000)
    assert deadline.since_s == since_s
    assert deadline.at_s == pytest.approx(since_s + 10)
    assert deadline.left_ms() <= 9_000


@pytest.mark.parametrize("waited_s", [1.001, 60, math.inf])
def test_what_waited_past_its_deadline_is_refused_whole(waited_s: float) -> None:
    """It says that nothing was charged, and may be asked again."""
    with pytest.raises(Unavailable, match="nothing was charged") as refused:
        deadline_since(time.perf_counter() - waited_s, 1_000)
    assert refused.value.retry_is_safe


def test_a_deadline_that_passes_while_it_is_worked_on_leaves_a_millisecond() -> None:
    """The answer comes a moment later."""
    assert Deadline(since_s=time.perf_counter() - 5, budget_ms=15).left_ms() == 1
