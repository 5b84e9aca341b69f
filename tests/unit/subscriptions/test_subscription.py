"""The life of a subscription as a table in which most lines are refusals."""

from __future__ import annotations

import pytest

from billing_core.errors import Conflict
from billing_core.subscriptions.subscription import Act, Phase, phase_after


@pytest.mark.parametrize(
    ("phase", "act", "following"),
    [
        (Phase.ACTIVE, Act.RENEW, Phase.ACTIVE),
        (Phase.ACTIVE, Act.CHANGE, Phase.ACTIVE),
        (Phase.ACTIVE, Act.CANCEL_AT_END, Phase.ENDING),
        (Phase.ACTIVE, Act.END, None),
        (Phase.ENDING, Act.RENEW, None),
        (Phase.ENDING, Act.CHANGE, None),
        (Phase.ENDING, Act.CANCEL_AT_END, Phase.ENDING),
        (Phase.ENDING, Act.END, Phase.ENDED),
        (Phase.ENDED, Act.RENEW, None),
        (Phase.ENDED, Act.CHANGE, None),
        (Phase.ENDED, Act.CANCEL_AT_END, None),
        (Phase.ENDED, Act.END, None),
    ],
)
def test_a_phase_allows_an_act_or_refuses_it_by_name(phase: Phase, act: Act, following: Phase | None) -> None:
    """What has no following phase is a Conflict that names both."""
    if following is not None:
        assert phase_after(phase, act) is following
        return
    with pytest.raises(Conflict, match=f"is {phase} cannot {act}"):
        phase_after(phase, act)
