"""What a response has cost: rules and evidence into quantities, and the end of the hold.

    the upstream did not answer, or with a status that is free      the hold is released
    the response came to its end                                    as each charge says
    the client went, the upstream was lost                          as the route's policy says
    the hold was used up and could not be extended                  what was delivered

Evidence is what was seen: header, usage frame, bytes, messages, seconds. What a rule asks for and nobody has seen
(a usage frame that never came) is counted as far as it can be, and else settled as held; never as nothing.

A client that goes before anything came is charged by the same policy, if all of its request has left for the
upstream, which may work at it. Where a part of the request is missing nobody could, and nobody pays.

Where a response did not come to its end, the hold's usage event tells what was seen: ending, policy, status, bytes
and tokens that were delivered.

A hold is settled where its request ends, and the next request on the connection waits for that. While Redis is
away settlements wait their turn, at most `MOST_WAITING` of them and for an hour, and are sent again; settling
twice is harmless, because the first answer is given again. What is lost all the same, with this process say, ends
as the hold's `on_expiry` says.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from billing_core.contract.usage_event import EventBody, encode_body
from billing_core.errors import Failure, Unavailable
from gateway.admission.caller import Caller
from gateway.admission.deadline import deadline_in
from gateway.admission.hold import Holds
from gateway.admission.order import Charge
from gateway.edge.meter.usage import Usage
from gateway.edge.proxy.pricing import units_of
from gateway.edge.proxy.rule import ChargeRule, Loss, Messages, RouteRule, UsagePart

MOST_WAITING: Final = 10_000
_RETRY_S: Final = 0.25
_MOST_REFUSED: Final = 4
"""So many that cannot be sent end a round."""
_PATIENCE_S: Final = 3_600.0


class Ending(StrEnum):
    """How a response ended."""

    WHOLE = "whole"
    CLIENT_LOST = "client_lost"
    UPSTREAM_LOST = "upstream_lost"
    CUT = "cut"


class Evidence(msgspec.Struct, kw_only=True):
    """What was seen of one response. `usage` None: no frame came; the counts are of what was delivered.

    `was_asked`: the upstream had all of the request when it was hung up on.
    """

    status: int = 0
    was_asked: bool = False
    ending: Ending = Ending.WHOLE
    headers: Mapping[str, str] = {}
    found: dict[str, object] = {}
    usage: Usage | None = None
    delivered_bytes: int = 0
    counted_tokens: int | None = None
    messages_down: int = 0
    messages_up: int = 0
    seconds: float = 0.0


def is_free(rule: RouteRule, status: int) -> bool:
    """Whether responses with this status are not charged."""
    text = str(status)
    return text in rule.free_statuses or f"{text[0]}xx" in rule.free_statuses


def policy_of(rule: RouteRule, ending: Ending) -> Loss:
    """By what such an ending is charged."""
    if ending is Ending.CLIENT_LOST:
        return rule.on_disconnect
    return rule.on_upstream_loss if ending is Ending.UPSTREAM_LOST else Loss.DELIVERED


def charges_of(rule: RouteRule, held: tuple[Charge, ...], *, evidence: Evidence) -> tuple[Charge, ...] | None:
    """What is to be charged; None: nothing, and the hold is released."""
    if evidence.status and is_free(rule, evidence.status):
        return None
    if not evidence.status and not (evidence.ending is Ending.CLIENT_LOST and evidence.was_asked):
        return None
    policy = policy_of(rule, evidence.ending)
    if evidence.ending is not Ending.WHOLE and policy is Loss.RELEASE:
        return None
    is_as_held = evidence.ending is not Ending.WHOLE and policy is Loss.HELD
    charges: list[Charge] = []
    for told, charge in zip(rule.charges, held, strict=True):
        units = None if is_as_held or told.settle is None else _units(told, evidence, policy=policy)
        charges.append(charge if units is None else msgspec.structs.replace(charge, quantity=units))
    return tuple(charges)


def covered_charge(rule: RouteRule) -> int | None:
    """Which charge a response is measured against while it passes; None where none is."""
    for place, charge in enumerate(rule.charges):
        settle = charge.settle
        if settle is not None and (settle.usage is UsagePart.OUTPUT or settle.messages or settle.seconds):
            return place
    return None


def passed_units(rule: RouteRule, evidence: Evidence) -> int:
    """How much of that charge has passed by now, in a connection that speaks another protocol."""
    place = covered_charge(rule)
    return 0 if place is None else _units(rule.charges[place], evidence, policy=Loss.DELIVERED) or 0


def _units(told: ChargeRule, evidence: Evidence, *, policy: Loss) -> int | None:
    """How much it was; None where nobody has seen it, so that it is settled as held."""
    settle = told.settle
    if settle is None or settle.units is not None:
        return settle.units if settle is not None else None
    if settle.header is not None:
        return units_of(evidence.headers.get(settle.header.lower()))
    if settle.json is not None:
        return units_of(evidence.found.get(settle.json))
    if settle.bytes is not None:
        return -(-evidence.delivered_bytes // settle.bytes)
    if settle.seconds is not None:
        return math.ceil(evidence.seconds / settle.seconds)
    if settle.messages is not None:
        down = 0 if settle.messages is Messages.UP else evidence.messages_down
        return down + (0 if settle.messages is Messages.DOWN else evidence.messages_up)
    return _used(settle.usage, evidence, policy=policy)


def _used(part: UsagePart | None, evidence: Evidence, *, policy: Loss) -> int | None:
    usage, counted = evidence.usage, evidence.counted_tokens
    is_whole = evidence.ending is Ending.WHOLE or policy in (Loss.USAGE, Loss.DRAIN)
    if usage is not None and (is_whole or part in (UsagePart.INPUT, UsagePart.CACHED)):
        return usage.part(part)
    if usage is not None and part is UsagePart.TOTAL:
        return usage.input + usage.cached + (counted or 0)
    if part is UsagePart.OUTPUT and (counted or evidence.ending is not Ending.WHOLE):
        return counted  # of a whole stream in which no token was recognized nothing is known
    if part is UsagePart.CACHED:
        return 0 if usage is not None else None
    return None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a hold is to end. `charges` None: it is released. `body`: of a usage event that tells the evidence.

    `place` of whoever takes turns for it, where that is known.
    """

    hold_id: str
    charges: tuple[Charge, ...] | None
    body: bytes = b""
    place: str = ""
    until_s: float


def settlement_of(
    hold_id: str, charges: tuple[Charge, ...] | None, *, body: bytes = b"", place: str = ""
) -> Settlement:
    """One that is due now."""
    until_s = time.perf_counter() + _PATIENCE_S
    return Settlement(hold_id=hold_id, charges=charges, body=body, place=place, until_s=until_s)


def body_of(
    rule: RouteRule, caller: Caller, *, event_id: str, charges: tuple[Charge, ...], evidence: Evidence
) -> bytes:
    """Of the usage event of a response that nobody got to its end: what was seen, and by what it was charged."""
    policy = policy_of(rule, evidence.ending)
    told = {
        "ending": evidence.ending.value,
        "policy": policy.value,
        "status": str(evidence.status),
        "delivered_bytes": str(evidence.delivered_bytes),
        "has_usage": "1" if evidence.usage is not None else "0",
    }
    if evidence.counted_tokens is not None:
        told["delivered_tokens"] = str(evidence.counted_tokens)
    return encode_body(
        EventBody(
            event_id=event_id,
            tenant_id=caller.tenant_id,
            customer_id=caller.customer_id,
            features=tuple([charge.feature for charge in charges]),
            properties=told,
            key_hint=caller.key_hint,
            path=caller.path,
        )
    )


class Settlements:
    """Ends holds; `keep` sends again what could not be sent, and runs until it is cancelled."""

    def __init__(self, holds: Holds, *, deadline_ms: int) -> None:
        self.holds = holds
        self._deadline_ms = deadline_ms
        self._waiting: deque[Settlement] = deque()
        self.settled = self.released = self.failed = self.dropped = 0

    @property
    def waiting_count(self) -> int:
        """Settlements that could not be sent yet."""
        return len(self._waiting)

    def read(self) -> dict[str, int]:
        """How many, by how they ended."""
        return {
            "settled": self.settled,
            "released": self.released,
            "failed": self.failed,
            "dropped": self.dropped,
        }

    async def settle(self, settlement: Settlement) -> None:
        """End a hold now, or as soon as it can be."""
        try:
            await self._end(settlement)
        except Unavailable:
            self._wait(settlement)
        except Failure:
            self.failed += 1  # it has ended otherwise, or cannot be counted; the books tell how

    async def end(self, settlement: Settlement, *, places: int = MOST_WAITING) -> None:
        """End a hold now, and say how that went.

        Raises: Failure; of Unavailable nothing is promised, though it is tried again if fewer than `places` wait.
        """
        try:
            await self._end(settlement)
        except Unavailable:
            if self.waiting_count < places:
                self._wait(settlement)
            raise

    async def keep(self) -> None:
        """Send again what waits; those whose hold has ended by itself are dropped and counted."""
        while True:
            await asyncio.sleep(_RETRY_S)
            await self.retry()

    async def retry(self) -> None:
        """Once. What cannot be sent goes to the end: a shard that is not there keeps no other's from being sent."""
        refused = 0
        for _ in range(len(self._waiting)):
            settlement = self._waiting.popleft()
            if settlement.until_s < time.perf_counter():
                self.dropped += 1
                continue
            try:
                await self._end(settlement)
            except Unavailable:
                self._waiting.append(settlement)
                refused += 1
                if refused == _MOST_REFUSED:
                    return
            except Failure:
                self.failed += 1
            except asyncio.CancelledError:
                self._waiting.appendleft(settlement)  # whoever ends this process sends it
                raise

    async def _end(self, settlement: Settlement) -> None:
        hold_id, place, deadline = settlement.hold_id, settlement.place, deadline_in(self._deadline_ms)
        if settlement.charges is None:
            await self.holds.release(hold_id, deadline=deadline, place=place)
            self.released += 1
        else:
            body = settlement.body
            await self.holds.settle(hold_id, settlement.charges, deadline=deadline, body=body, place=place)
            self.settled += 1

    def _wait(self, settlement: Settlement) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(settlement)
