"""Rounds: every peer in turn, A B C, A B C, so that what the machine does meanwhile falls on all of them alike.

closed     32 connections, each sends again when its answer is there: how much is carried, at what cost
paced      a constant arrival rate, latency from the intended start: how late answers are at a part of the load
neighbour  one customer asks quietly, alone and then beside another who asks a hundred times as often
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from bench.apparatus.customer import KEYS
from bench.apparatus.ground import middle
from bench.peers import call
from bench.peers.load import CONNECTIONS, Pace, Report, Stream, bare_calls, closed_loop, rpc_loop
from bench.peers.roster import NGINX_LUA, TALLYGATE, Peer, Role, request_of
from bench.peers.scene import Scene, Spent

PROCESSORS: Final = 2
PACED: Final = (TALLYGATE, NGINX_LUA)
PARTS: Final = (0.25, 0.5, 0.75)
NOISY_TIMES: Final = 100
_QUIET_CONNECTIONS: Final = 4
_CALIBRATION: Final = 5_000
_CUT_OFF: Final = 4 * CONNECTIONS  # requests whose answer the load program did not wait for


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one peer. Processor microseconds are per request: of the peer's servers, and of Valkey.

    `at_once`: how many requests Valkey got in one read.
    """

    report: Report
    servers_cpu_us: float
    valkey_cpu_us: float
    at_once: float

    @property
    def cpu_us(self) -> float:
        """Of both."""
        return self.servers_cpu_us + self.valkey_cpu_us

    @property
    def bound(self) -> float:
        """Requests a second that the processors could carry at this cost, the load's included, if nobody waited."""
        return PROCESSORS * 1e6 / (self.cpu_us + self.report.load_cpu_us)


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """One round of the quiet customer, alone and beside the noisy one, and what the noisy one got."""

    alone: Report
    beside: Report
    noisy: Report


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """Samples at one arrival rate, by peer."""

    part: float
    rate: float
    samples: Mapping[str, Sequence[Sample]]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run has seen, by peer; empty where it was not asked for."""

    closed: Mapping[str, Sequence[Sample]]
    paced: Sequence[Paced]
    neighbour: Mapping[str, Sequence[Beside]]


def closed(stage: Scene, peers: Sequence[Peer], *, rounds: int, seconds: int) -> dict[str, list[Sample]]:
    """What each peer carries, round after round."""
    counts = {peer.name: _warm_up(stage, peer, seconds=seconds) for peer in peers}
    seen: dict[str, list[Sample]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        for peer in peers:
            say(f"closed {number + 1}/{rounds} {peer.name}")
            count = counts[peer.name]
            seen[peer.name].append(
                _sampled(stage, peer, load=lambda p=peer, n=count: _load(stage, p, seconds, count=n))
            )
    return seen


def _warm_up(stage: Scene, peer: Peer, *, seconds: int) -> int:
    """Run a peer for a moment; how many bare calls fill the time."""
    rate = _load(stage, peer, 1, count=_CALIBRATION).per_second
    stage.tidy()
    return max(_CALIBRATION, int(rate * seconds))


def _load(stage: Scene, peer: Peer, seconds: int, *, count: int) -> Report:
    port = stage.ports[peer.port]
    if peer.role is Role.RATELIMIT:
        message = call.rate_limit_message(KEYS["customer"])
        return rpc_loop(
            stage.tools, message, method=call.RATE_LIMIT, port=port, seconds=seconds, folder=stage.folder
        )
    if peer.role is not Role.SCRIPT:
        return closed_loop(stage.tools, request_of(peer), port=port, seconds=seconds)
    words = call.words_of(call.act_of("customer"))
    return bare_calls(stage.tools, words, port=port, count=count, at_once=peer.at_once)


def paced(stage: Scene, peers: Sequence[Peer], *, rate: float, rounds: int, seconds: float) -> list[Paced]:
    """How late answers are at parts of that rate, the same for all peers."""
    told: list[Paced] = []
    chosen = [peer for peer in peers if peer.name in PACED]
    for part in PARTS if chosen else ():
        seen: dict[str, list[Sample]] = {peer.name: [] for peer in chosen}
        pace = Pace(rate=rate * part, seconds=seconds)
        for number in range(rounds):
            for peer in chosen:
                say(f"paced at {pace.rate:.0f}/s {number + 1}/{rounds} {peer.name}")
                stream = lambda p=peer, at=pace: _stream(stage, p, pace=at).report()  # noqa: E731
                seen[peer.name].append(_sampled(stage, peer, load=stream))
        told.append(Paced(part=part, rate=pace.rate, samples=seen))
    return told


def reference_rate(seen: Mapping[str, Sequence[Sample]]) -> float:
    """What nginx+lua carried in this run; without it, what the slowest of the paced peers did."""
    rates = {name: middle([one.report.per_second for one in seen[name]]) for name in PACED if name in seen}
    return rates.get(NGINX_LUA, min(rates.values(), default=0.0))


def neighbour(
    stage: Scene, peers: Sequence[Peer], *, quiet_rate: float, rounds: int, seconds: float
) -> dict[str, list[Beside]]:
    """The quiet customer's latencies, alone and beside the noisy one."""
    chosen = [peer for peer in peers if peer.name in PACED]
    seen: dict[str, list[Beside]] = {peer.name: [] for peer in chosen}
    quiet = Pace(rate=quiet_rate, seconds=seconds, connections=_QUIET_CONNECTIONS)
    noisy = Pace(rate=quiet_rate * NOISY_TIMES, seconds=seconds)
    for number in range(rounds):
        for peer in chosen:
            say(f"neighbour {number + 1}/{rounds} {peer.name}")
            alone = _stream(stage, peer, pace=quiet).report()
            loud = _stream(stage, peer, pace=noisy, customer="noisy")
            beside = _stream(stage, peer, pace=quiet)
            seen[peer.name].append(Beside(alone=alone, beside=beside.report(), noisy=loud.report()))
            stage.tidy()
    return seen


def _stream(stage: Scene, peer: Peer, *, pace: Pace, customer: str = "customer") -> Stream:
    request = request_of(peer, customer=customer)
    return Stream(stage.tools, request, port=stage.ports[peer.port], pace=pace, folder=stage.folder)


def _sampled(stage: Scene, peer: Peer, *, load: Callable[[], Report]) -> Sample:
    """Run a load, and hold it against what the servers used and what stands in the streams."""
    before = stage.spent(peer)
    report = load()
    after = stage.spent(peer)
    if peer.is_recorded:
        _check_entries(peer, report, before=before, after=after)
    stage.tidy()
    each = 1e6 / max(1, report.requests)
    return Sample(
        report=report,
        servers_cpu_us=(after.servers_s - before.servers_s) * each,
        valkey_cpu_us=(after.valkey_s - before.valkey_s) * each,
        at_once=report.requests / max(1, after.reads - before.reads),
    )


def _check_entries(peer: Peer, report: Report, *, before: Spent, after: Spent) -> None:
    """A fast stream of answers is not taken for speed: each that allowed has left its entry."""
    grown, allowed = after.entries - before.entries, report.requests - report.not_allowed
    if not allowed <= grown <= report.requests + report.lost + _CUT_OFF:
        raise SystemExit(f"{peer.name} allowed {allowed} requests and recorded {grown}")


def say(words: str) -> None:
    """Tell a person what is being done."""
    sys.stderr.write(f"{words}\n")
