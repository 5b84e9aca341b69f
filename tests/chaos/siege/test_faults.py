"""Every fault of `tallygate chaos` once, on a whole house under traffic: nothing is lost, doubled or overspent.

What is asserted is the judgement over everything that was answered (`gateway.command.chaos.verdict`), and that
service came back without a hand: a siege that waits for it in vain raises. How long it took is for the command and
the bench to tell.
"""

from __future__ import annotations

import pytest

from gateway.command.chaos.fault import FAULTS
from gateway.command.chaos.siege import Siege

LONGER_THAN_A_LEASE_S = 1.2

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_under_load_loses_nothing(always: Siege, fault: str) -> None:
    """Promises 1, 2, 3 and 5, attacked; with `appendfsync always`."""
    outcome = await always.endure(fault, stop_s=LONGER_THAN_A_LEASE_S)
    assert outcome.verdict.words == ()
    assert outcome.verdict.is_clean
    assert outcome.verdict.answered > 0


async def test_a_log_that_is_written_through_once_a_second_loses_nothing_with_a_process(everysec: Siege) -> None:
    """What was written is the kernel's: only a machine that dies may lose the last second."""
    for fault in ("kill valkey", "full disk"):
        outcome = await everysec.endure(fault, stop_s=LONGER_THAN_A_LEASE_S)
        assert outcome.verdict.words == ()
        assert outcome.verdict.is_clean
        assert outcome.verdict.answered > 0
