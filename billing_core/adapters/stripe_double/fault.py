"""Faults, switched on by tests: what a network and a processor do to those who rely on them.

    lose_request    the connection ends before anything was done
    lose_answer     everything was done, and the connection ends before the answer
    fail_before     500, nothing was done, and the 500 is kept under the idempotency key
    fail_after      500 although everything was done
    slow            the answer takes `delay_ms` more
    double_webhook  every webhook of the act is sent twice
    hold_webhook    webhooks of the act wait until the faults are cleared

A switch names an act, `payment_intents.create` and so on, and how many times it happens.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FaultKind(StrEnum):
    """What goes wrong."""

    LOSE_REQUEST = "lose_request"
    LOSE_ANSWER = "lose_answer"
    FAIL_BEFORE = "fail_before"
    FAIL_AFTER = "fail_after"
    SLOW = "slow"
    DOUBLE_WEBHOOK = "double_webhook"
    HOLD_WEBHOOK = "hold_webhook"


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault that is on."""

    act: str
    kind: FaultKind
    times: int = 1
    delay_ms: int = 0


class Faults:
    """The switches that are on, each used up as it happens."""

    def __init__(self) -> None:
        self._switches: list[Switch] = []

    def add(self, switch: Switch) -> None:
        """Switch a fault on."""
        self._switches.append(switch)

    def clear(self) -> None:
        """Switch all faults off."""
        self._switches.clear()

    def take(self, act: str, *kinds: FaultKind) -> Switch | None:
        """The next fault of these kinds for the act, one time of it used up."""
        for index, switch in enumerate(self._switches):
            if switch.act == act and switch.kind in kinds:
                left = switch.times - 1
                rest = [msgspec.structs.replace(switch, times=left)] if left else []
                self._switches[index : index + 1] = rest
                return switch
        return None
