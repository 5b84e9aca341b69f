"""Merging: what several sources say about one feature becomes one entitlement.

Sources count in this order, and each is applied to what came out of those before it:

    plan          states what there is: the version that the customer subscribed to, whatever the catalog says now
    add-ons       add, in the order of their codes: n of them add n times
    trials        widen, in the order of their beginnings: what either allows is allowed
    override      replaces all of it, also by a denial; of several in force the one that took effect last counts
    budget        narrows what is left at the customer: of two bounds the one that refuses first

Adding: units of limits on the same windows add up, rollover too; concurrency adds; switches or; of two rates of one
bucket the larger counts, however many add-ons there are; soft beats hard. What only the base bounds stays bounded;
what it does not bound stays free, because an add-on never takes anything away. Where the base entitles to nothing,
the add-on itself, times n, is the entitlement. A static value that is told replaces the one before.

Widening: a bound stays only where both sides have it, and then the wider one. Nothing adds up.

Narrowing: every bound of either side stays; of two on the same windows the one that refuses first.

How an outage is answered (`on_outage`) and what is sliced (`slice_units`) is the base's word, or that of whoever
entitles alone. All functions are pure.

Worked example: the plan grants 1,000 a month and 100 a day, two add-ons of 500 a month and a trial of 5,000 a
month. With the add-ons 2,000 a month and 100 a day; with the trial 5,000 a month, and no bound on the day.
"""

from __future__ import annotations

import msgspec

from billing_core.catalog.guard import EntitlementTerms, Guard, Levels, Limit, LimitMode, Rate
from billing_core.values.money import MAX_EXACT

_FREE = Guard()


def add(base: EntitlementTerms | None, more: EntitlementTerms, *, quantity: int) -> EntitlementTerms:
    """The base with `quantity` add-ons."""
    if base is None or not base.enabled:
        return _times(more, quantity)
    others = more.levels.told
    levels = {
        level: _added(guard, others.get(level, _FREE), quantity=quantity)
        for level, guard in base.levels.told.items()
    }
    return msgspec.structs.replace(
        _with_guard(base, _added(base, more, quantity=quantity)),
        value=more.value or base.value,
        levels=Levels.of(levels),
    )


def widen(base: EntitlementTerms | None, trial: EntitlementTerms) -> EntitlementTerms:
    """What the base or the trial allows."""
    if base is None or not base.enabled:
        return trial
    others = trial.levels.told
    levels = {level: _widened(guard, others[level]) for level, guard in base.levels.told.items() if level in others}
    return msgspec.structs.replace(
        _with_guard(base, _widened(base, trial)), value=trial.value or base.value, levels=Levels.of(levels)
    )


def narrow(guard: Guard, other: Guard) -> Guard:
    """A guard that refuses what either refuses."""
    limits = {limit.window: limit for limit in guard.limits}
    for limit in other.limits:
        known = limits.get(limit.window)
        limits[limit.window] = limit if known is None else min(known, limit, key=_first_to_refuse)
    rates = {rate.bucket: rate for rate in guard.rates}
    for rate in other.rates:
        known = rates.get(rate.bucket)
        rates[rate.bucket] = rate if known is None else _rate(known, rate, largest=False)
    told = [n for n in (guard.concurrent, other.concurrent) if n is not None]
    return Guard(limits=tuple(limits.values()), rates=tuple(rates.values()), concurrent=min(told, default=None))


def narrowed(terms: EntitlementTerms, other: Guard) -> EntitlementTerms:
    """The entitlement, held back at the customer by a budget."""
    return _with_guard(terms, narrow(terms, other))


def _with_guard(terms: EntitlementTerms, guard: Guard) -> EntitlementTerms:
    return msgspec.structs.replace(terms, limits=guard.limits, rates=guard.rates, concurrent=guard.concurrent)


def _times(terms: EntitlementTerms, quantity: int) -> EntitlementTerms:
    levels = {level: _multiple(guard, quantity) for level, guard in terms.levels.told.items()}
    return msgspec.structs.replace(_with_guard(terms, _multiple(terms, quantity)), levels=Levels.of(levels))


def _multiple(guard: Guard, quantity: int) -> Guard:
    bare = Guard(
        limits=tuple(msgspec.structs.replace(limit, units=0, rollover_units=0) for limit in guard.limits),
        rates=guard.rates,
        concurrent=None if guard.concurrent is None else 0,
    )
    return _added(bare, guard, quantity=quantity)


def _added(base: Guard, more: Guard, *, quantity: int) -> Guard:
    limits = {limit.window: limit for limit in more.limits}
    rates = {rate.bucket: rate for rate in more.rates}
    concurrent = base.concurrent
    if concurrent is not None:
        concurrent = min(concurrent + quantity * (more.concurrent or 0), MAX_EXACT)
    return Guard(
        limits=tuple(_plus(limit, limits.get(limit.window), quantity=quantity) for limit in base.limits),
        rates=tuple(_rate(rate, rates.get(rate.bucket, rate), largest=True) for rate in base.rates),
        concurrent=concurrent,
    )


def _plus(limit: Limit, more: Limit | None, *, quantity: int) -> Limit:
    if more is None:
        return limit
    return _fitted(
        msgspec.structs.replace(
            limit,
            units=limit.units + quantity * more.units,
            rollover_units=limit.rollover_units + quantity * more.rollover_units,
            grace_percent=max(limit.grace_percent, more.grace_percent),
            mode=_softer(limit, more),
        )
    )


def _widened(base: Guard, trial: Guard) -> Guard:
    limits = {limit.window: limit for limit in trial.limits}
    rates = {rate.bucket: rate for rate in trial.rates}
    either_is_free = base.concurrent is None or trial.concurrent is None
    return Guard(
        limits=tuple(_wider(limit, limits[limit.window]) for limit in base.limits if limit.window in limits),
        rates=tuple(_rate(rate, rates[rate.bucket], largest=True) for rate in base.rates if rate.bucket in rates),
        concurrent=None if either_is_free else max(base.concurrent or 0, trial.concurrent or 0),
    )


def _wider(limit: Limit, other: Limit) -> Limit:
    return _fitted(
        msgspec.structs.replace(
            limit,
            units=max(limit.units, other.units),
            rollover_units=max(limit.rollover_units, other.rollover_units),
            grace_percent=max(limit.grace_percent, other.grace_percent),
            mode=_softer(limit, other),
        )
    )


def _softer(limit: Limit, other: Limit) -> LimitMode:
    return LimitMode.SOFT if LimitMode.SOFT in {limit.mode, other.mode} else LimitMode.HARD


def _fitted(limit: Limit) -> Limit:
    """The limit in numbers that the scripts can hold, without a grace where it never refuses."""
    grace = 0 if limit.mode is LimitMode.SOFT else limit.grace_percent
    units = min(limit.units, MAX_EXACT * 100 // (100 + grace))
    room = MAX_EXACT - units * (100 + grace) // 100
    return msgspec.structs.replace(
        limit, units=units, grace_percent=grace, rollover_units=min(limit.rollover_units, room)
    )


def _first_to_refuse(limit: Limit) -> tuple[bool, int, int]:
    """Sorts the limit that refuses first before others; of those that never do, the smaller."""
    return limit.ceiling < 0, limit.ceiling, limit.units


def _rate(rate: Rate, other: Rate, *, largest: bool) -> Rate:
    choose = max if largest else min
    burst = choose(rate.burst_units, other.burst_units)
    units = choose(rate.units, other.units)
    return msgspec.structs.replace(rate, units=units, burst=None if burst == units else burst)
