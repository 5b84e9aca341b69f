"""Workers are killed with -9 in the middle of real traffic; the proof holds all the same."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from itertools import cycle
from typing import Any

TURNS = cycle(("flush", "gateway.edge", "api,relay,cycle", "gateway.edge"))
KILLS = 12
BETWEEN_S = 0.5
ASLEEP_S = 0.2


def test_a_replay_survives_twelve_kills(running_up: Any) -> None:
    """Nothing is lost and nothing is counted twice: every equality to the nano, reconcile at zero."""
    replay = running_up.begin("replay", "--json", "--speed", "45")
    killed = 0
    while killed < KILLS:
        try:
            replay.wait(timeout=BETWEEN_S)
        except subprocess.TimeoutExpired:
            victims = running_up.workers(next(TURNS))
            if victims:
                victim = victims[killed % len(victims)]
                victim.suspend()  # so that something lies in it when it dies
                with suppress(subprocess.TimeoutExpired):
                    replay.wait(timeout=ASLEEP_S)
                victim.kill()
                killed += 1
        else:
            break
    out, err = replay.communicate(timeout=300)
    assert killed == KILLS, out + err
    assert replay.returncode == 0, out + err
    report = json.loads(out)
    assert report["retries"] > 0
    assert report["settled"] == report["requests"] == 300
    assert [finding for finding in report["findings"] if finding["expected"] != finding["found"]] == []
