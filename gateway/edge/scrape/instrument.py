"""Numbers that the parts keep anyway, read when somebody collects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from billing_core.contract.telemetry import Read, Telemetry
from gateway.admission.degraded.outage import Outage
from gateway.admission.slice.local import LocalDecisions
from gateway.edge.proxy.settlement import Settlements
from gateway.state.directory import Directory
from gateway.state.link import Link
from gateway.state.pipe import PipeTally

_TALLIES: tuple[tuple[str, str, Callable[[PipeTally], int]], ...] = (
    ("commands", "Commands sent to Redis.", lambda tally: tally.commands),
    ("writes", "Writes that carried them.", lambda tally: tally.writes),
    ("expired", "Commands that passed their deadline.", lambda tally: tally.expired),
    ("refused", "Commands refused at once.", lambda tally: tally.refused),
    ("connects", "Connections made.", lambda tally: tally.connects),
)


def observe_links(telemetry: Telemetry, links: Mapping[str, Link]) -> None:
    """What travels on each link."""
    telemetry.gauge(
        "tallygate_link_in_flight",
        "Commands without a reply.",
        read=lambda: {name: link.in_flight_count for name, link in links.items()},
        label="link",
    )
    telemetry.gauge(
        "tallygate_link_seated",
        "Commands without a reply that customers take turns for.",
        read=lambda: {name: link.seated_count for name, link in links.items()},
        label="link",
    )
    telemetry.gauge(
        "tallygate_link_waiting",
        "Commands that wait for their customer's turn.",
        read=lambda: {name: link.waiting_count for name, link in links.items()},
        label="link",
    )
    telemetry.counter(
        "tallygate_shed",
        "Decisions that were never asked for: too many waited, or it would have been too late.",
        read=lambda: dict(sum((link.tally.shed for link in links.values()), Counter[str]())),
        label="reason",
    )
    for name, text, tell in _TALLIES:
        telemetry.counter(f"tallygate_link_{name}", text, read=_of_links(links, tell), label="link")


def observe_directory(telemetry: Telemetry, directory: Directory) -> None:
    """How well each memory serves."""
    caches = {
        "credential": directory.credentials,
        "stranger": directory.strangers,
        "customer": directory.customers,
        "meters": directory.meters,
    }
    telemetry.counter(
        "tallygate_cache_hits",
        "Look-ups answered from memory.",
        read=lambda: {name: cache.hits for name, cache in caches.items()},
        label="cache",
    )
    telemetry.counter(
        "tallygate_cache_misses",
        "Look-ups that were not.",
        read=lambda: {name: cache.misses for name, cache in caches.items()},
        label="cache",
    )
    telemetry.gauge(
        "tallygate_cache_entries",
        "What is remembered.",
        read=lambda: {name: len(cache) for name, cache in caches.items()},
        label="cache",
    )


def observe_outage(telemetry: Telemetry, outage: Outage) -> None:
    """What was set aside for an outage, what was allowed in one, and what became of that."""
    telemetry.gauge(
        "tallygate_leased_units",
        "Units that may still be allowed while Redis is away.",
        read=lambda: {"": outage.leased_units()},
    )
    telemetry.gauge(
        "tallygate_journal_entries",
        "Orders allowed while Redis was away and not charged yet.",
        read=lambda: {"": outage.pending_count()},
    )
    telemetry.counter(
        "tallygate_journalled_units",
        "Units allowed while Redis was away.",
        read=lambda: {"": outage.tally.journalled_units},
    )
    telemetry.counter(
        "tallygate_journal_replayed",
        "Orders made good: charged on their lease, known to Redis already, or recorded after the lease had ended.",
        read=outage.tally.replayed.copy,
        label="fate",
    )
    telemetry.counter(
        "tallygate_journal_lost",
        "Orders that can never be charged, kept in the journal's folder.",
        read=lambda: {"": outage.tally.lost},
    )


def observe_slices(telemetry: Telemetry, local: LocalDecisions) -> None:
    """What was set aside for decisions of this process' own, and what became of it."""
    tally = local.tally
    telemetry.gauge(
        "tallygate_sliced_units",
        "Units that may still be allowed out of slices.",
        read=lambda: {"": local.left_units()},
    )
    counters: tuple[tuple[str, str, Callable[[], int]], ...] = (
        ("tallygate_slices_taken", "Slices that were taken.", lambda: tally.taken),
        ("tallygate_slices_refused", "Slices that Redis would not give.", lambda: tally.refused),
        ("tallygate_slices_yielded", "Slices that ended because somebody ran short.", lambda: tally.yielded),
        (
            "tallygate_slices_lost",
            "Slices that can never be settled, kept in the journal's folder.",
            lambda: tally.lost,
        ),
        ("tallygate_sliced_decisions", "Decisions out of slices.", lambda: tally.decided),
        ("tallygate_sliced_settled_units", "Units of slices that were settled.", lambda: tally.settled_units),
    )
    for name, text, tell in counters:
        telemetry.counter(name, text, read=_one(tell))


def observe_settlements(telemetry: Telemetry, settlements: Settlements) -> None:
    """How holds ended that are ended here: those of the proxy, of its siblings' hooks, and of logs."""
    telemetry.counter(
        "tallygate_settlements",
        "Ends of holds: settled, released, failed (ended otherwise, or not to be counted), dropped (never told).",
        read=settlements.read,
        label="end",
    )
    telemetry.gauge(
        "tallygate_settlements_waiting",
        "Holds that Redis could not be told the end of yet.",
        read=lambda: {"": settlements.waiting_count},
    )


def _one(tell: Callable[[], int]) -> Read:
    return lambda: {"": tell()}


def _of_links(links: Mapping[str, Link], tell: Callable[[PipeTally], int]) -> Read:
    return lambda: {name: tell(link.tally) for name, link in links.items()}
