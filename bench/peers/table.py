"""What a run has found, as a table for people and as JSON lines for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.apparatus.ground import middle, spread
from bench.peers.claims import Claim
from bench.peers.roster import PEERS
from bench.peers.rounds import Beside, Findings, Sample

_RATE = "{:32} {:8} {:>10} {:>17} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8} {:>7}"
_RATE_HEADS = (
    *("script", "answers/s", "least to most", "p50 us", "p99 us"),
    *("cpu us", "valkey", "at once", "bound", "faults"),
)
_RATE_NOTE = (
    "32 connections, each sends again when its answer is there; medians of the rounds. Processor time is of a",
    "request: in the peer, and in Valkey. At once: how many requests Valkey got in one read. Bound: what two",
    "processors could carry at this cost, that of the load too, if nobody ever waited for anybody.",
)
_LATE = "{:32} {:>10} {:>10} {:>10} {:>19} {:>10} {:>7}"
_CLAIM = "{:58} {:>7} {:>16} {:>8} {:>6}"


def table_of(findings: Findings, claims: Sequence[Claim]) -> Iterator[str]:
    """Lines of text."""
    if findings.closed:
        yield from _RATE_NOTE
        yield _RATE.format("", *_RATE_HEADS)
    for peer in PEERS:
        if peer.name in findings.closed:
            yield _rate_line(peer.name, peer.script, samples=findings.closed[peer.name])
    if findings.paced:
        yield ""
        yield "constant arrival rate, from the intended start"
        yield _LATE.format("", "asked/s", "p50 us", "p99 us", "least to most", "pacer us", "faults")
    for paced in findings.paced:
        for name, samples in paced.samples.items():
            yield _late_line(name, paced.rate, samples=samples)
    for name, rounds in findings.neighbour.items():
        yield ""
        yield _neighbour_line(name, rounds=rounds)
    if claims:
        yield ""
        yield _CLAIM.format("ratio, round by round", "median", "least to most", "wanted", "")
    for claim in claims:
        yield _claim_line(claim)


def _rate_line(name: str, script: str, *, samples: Sequence[Sample]) -> str:
    rates = [one.report.per_second for one in samples]
    return _RATE.format(
        name,
        script,
        f"{middle(rates):.0f}",
        f"{min(rates):.0f} to {max(rates):.0f}",
        f"{middle([one.report.p50_us for one in samples]):.0f}",
        f"{middle([one.report.p99_us for one in samples]):.0f}",
        f"{middle([one.servers_cpu_us for one in samples]):.1f}",
        f"{middle([one.valkey_cpu_us for one in samples]):.1f}",
        f"{middle([one.at_once for one in samples]):.1f}",
        f"{middle([one.bound for one in samples]):.0f}",
        _faults(samples),
    )


def _late_line(name: str, rate: float, *, samples: Sequence[Sample]) -> str:
    lates = [one.report.p99_us for one in samples]
    return _LATE.format(
        name,
        f"{rate:.0f}",
        f"{middle([one.report.p50_us for one in samples]):.0f}",
        f"{middle(lates):.0f}",
        f"{min(lates):.0f} to {max(lates):.0f}",
        f"{middle([one.report.late_p99_us for one in samples]):.0f}",
        _faults(samples),
    )


def _neighbour_line(name: str, *, rounds: Sequence[Beside]) -> str:
    told = ", ".join(
        f"p{part} alone {middle([getattr(one.alone, f'p{part}_us') for one in rounds]):.0f} us,"
        f" beside {middle([getattr(one.beside, f'p{part}_us') for one in rounds]):.0f} us"
        for part in (50, 99)
    )
    got = middle([one.noisy.per_second for one in rounds])
    refused = sum(one.noisy.not_allowed + one.noisy.lost for one in rounds)
    said = f"the noisy one got {got:.0f}/s, refused or lost {refused}"
    return f"{name}: quiet {told}; {said}"


def _claim_line(claim: Claim) -> str:
    low, high = claim.spread
    wanted = f">= {claim.at_least}" if claim.at_least is not None else f"<= {claim.at_most}"
    is_judged = claim.at_least is not None or claim.at_most is not None
    verdict = ("met" if claim.is_met else "missed") if is_judged else ""
    return _CLAIM.format(
        claim.name, f"{claim.ratio:.2f}", f"{low:.2f} to {high:.2f}", wanted if is_judged else "", verdict
    )


def _faults(samples: Sequence[Sample]) -> int:
    return sum(one.report.not_allowed + one.report.lost for one in samples)


def write_lines(file: Path, findings: Findings, claims: Sequence[Claim], *, on: Mapping[str, object]) -> None:
    """One JSON line per peer and act, one per ratio; each with all its rounds."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as out:
        for line in _lines(findings, claims):
            out.write(msgspec.json.encode({**line, "on": on}) + b"\n")


def _lines(findings: Findings, claims: Sequence[Claim]) -> Iterator[dict[str, object]]:
    for name, samples in findings.closed.items():
        yield {"claim": "peers", "act": "closed", "peer": name, "rounds": samples}
    for paced in findings.paced:
        for name, samples in paced.samples.items():
            yield {"claim": "peers", "act": "paced", "peer": name, "rate": paced.rate, "rounds": samples}
    for name, rounds in findings.neighbour.items():
        yield {"claim": "peers", "act": "neighbour", "peer": name, "rounds": rounds}
    for claim in claims:
        told = {"ratio": claim.ratio, "spread": spread(claim.ratios), "is_met": claim.is_met}
        yield {"claim": "peers", "act": "ratio", **msgspec.structs.asdict(claim), **told}
