"""Guards: how much of a feature may be used, how fast, how many at one time, and how much money a window may cost.

A **limit** grants units per window. Above it a `hard` one refuses (with `grace_percent` a little later), a `soft`
one only counts. Its windows follow the calendar of the contract's zone, the day of the subscription, nothing
(`lifetime`: one window for ever), or the clock (`rolling`: the last minute, hour, day, week, 30, 90 or 365 days,
whatever the date). A **rate** is a leaky bucket of `burst` units that drains by `units` per second, minute, hour or
day. A **spend cap** is a limit in money.

The same guard may stand at the customer and at every team, project, user and key below it. Its counters are named
after what they count, never after the plan: so a change of plan keeps what was used, unless the limit says `reset`.

Worked example: 10,000 a day, hard, with 5 percent grace: request 10,501 is refused. 60 a minute with a burst of 10:
ten at once, then one a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from billing_core.contract.path import Level
from billing_core.values.ids import Code
from billing_core.values.money import nanos_of
from billing_core.values.period import Interval


class LimitMode(StrEnum):
    """What happens above a limit: `hard` refuses, `soft` records overage."""

    HARD = "hard"
    SOFT = "soft"


class LimitAnchor(StrEnum):
    """Where windows start: at calendar edges, on the subscription's day, once for ever, or wherever now is."""

    CALENDAR = "calendar"
    SUBSCRIPTION = "subscription"
    LIFETIME = "lifetime"
    ROLLING = "rolling"


class OnPlanChange(StrEnum):
    """What a change of plan does to what was used: nothing, or it is forgotten."""

    KEEP = "keep"
    RESET = "reset"


class RatePer(StrEnum):
    """The time in which a rate's units come back."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def ms(self) -> int:
        """Its length."""
        return _PER_MS[self]


class Counts(StrEnum):
    """What a rate counts: each request as one, or the units that it asks for."""

    REQUESTS = "requests"
    UNITS = "units"


class OnOutage(StrEnum):
    """What is answered while the counters cannot be reached."""

    REFUSE = "refuse"
    ALLOW = "allow"


class SpendLevel(StrEnum):
    """Where a plan's spend cap stands: at the customer, or at every node of a kind."""

    CUSTOMER = "customer"
    TEAM = "team"
    PROJECT = "project"
    USER = "user"
    KEY = "key"


_PER_MS = {RatePer.SECOND: 1_000, RatePer.MINUTE: 60_000, RatePer.HOUR: 3_600_000, RatePer.DAY: 86_400_000}


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Units per window. Of what a window left unused, up to `rollover_units` are carried into the next."""

    units: int
    mode: LimitMode = LimitMode.HARD
    grace_percent: int = 0
    interval: Interval | None = None
    anchor: LimitAnchor = LimitAnchor.CALENDAR
    rollover_units: int = 0
    on_plan_change: OnPlanChange = OnPlanChange.KEEP

    @property
    def window(self) -> str:
        """The name of its windows; a guard has one limit for each."""
        return window_name(self.interval, self.anchor)

    @property
    def ceiling(self) -> int:
        """Where it refuses; -1 for never."""
        return ceiling_of(self.units, self.mode, grace_percent=self.grace_percent)


class Rate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Units per time. `burst` is the most that may come at once; `units` where it is not told."""

    units: int
    per: RatePer
    burst: int | None = None
    counts: Counts = Counts.REQUESTS

    @property
    def bucket(self) -> str:
        """The name of its bucket; a guard has one rate for each."""
        return self.per.value if self.counts is Counts.REQUESTS else f"{self.per}.{self.counts}"

    @property
    def burst_units(self) -> int:
        """The most that may come at once."""
        return self.units if self.burst is None else self.burst


class Guard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that guards one feature at one place. Nothing told, nothing guarded."""

    limits: tuple[Limit, ...] = ()
    rates: tuple[Rate, ...] = ()
    concurrent: int | None = None


class Levels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same guard for every team, project, user or key, each on its own."""

    team: Guard | None = None
    project: Guard | None = None
    user: Guard | None = None
    key: Guard | None = None

    @property
    def told(self) -> dict[Level, Guard]:
        """Those that are guarded."""
        guards = {Level.TEAM: self.team, Level.PROJECT: self.project, Level.USER: self.user, Level.KEY: self.key}
        return {level: guard for level, guard in guards.items() if guard is not None}

    @classmethod
    def of(cls, guards: Mapping[Level, Guard]) -> Levels:
        """These guards."""
        return cls(**{level.value: guard for level, guard in guards.items()})


class EntitlementTerms(Guard, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What somebody may do with one feature: the words of a plan, an add-on, a trial or an override.

    `value` belongs to static features, guards to counted ones. `levels` guard every team, project, user or key on
    its own. With `on_outage` allow, units are leased in blocks of `outage_units` for the time of an outage. With
    `slice_units`, a gateway worker that is asked for the feature all the time sets so many units aside for a moment
    and decides on them by itself.
    """

    feature: Code
    enabled: bool = True
    value: str = ""
    levels: Levels = Levels()
    on_outage: OnOutage = OnOutage.REFUSE
    outage_units: int = 0
    slice_units: int = 0


class SpendCap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Money per window, over all features together.

    Units: `amount` is decimal text of major units of the currency (the plan's where none is told) or credit unit.
    """

    amount: str
    currency: str = ""
    mode: LimitMode = LimitMode.HARD
    grace_percent: int = 0
    interval: Interval | None = None
    anchor: LimitAnchor = LimitAnchor.CALENDAR

    @property
    def nanos(self) -> int:
        """The amount."""
        return int(nanos_of(self.amount, field="amount"))

    @property
    def ceiling(self) -> int:
        """Where it refuses; -1 for never. Units: nanos."""
        return ceiling_of(self.nanos, self.mode, grace_percent=self.grace_percent)

    def counter_in(self, currency: str) -> str:
        """The name of what it counts, where `currency` is meant if it names none: `$USD@month`."""
        return f"${self.currency or currency}@{window_name(self.interval, self.anchor)}"


class PlanSpendCap(SpendCap, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A spend cap that comes with a plan, for the customer or for every node of a level."""

    level: SpendLevel = SpendLevel.CUSTOMER


def window_name(interval: Interval | None, anchor: LimitAnchor) -> str:
    """How counters tell windows apart: `month`, `month.subscription`, `day.rolling`, `lifetime`."""
    if interval is None:
        return LimitAnchor.LIFETIME.value
    return interval.value if anchor is LimitAnchor.CALENDAR else f"{interval}.{anchor}"


def ceiling_of(units: int, mode: LimitMode, *, grace_percent: int) -> int:
    """Above what is refused: the units and their grace; -1 where nothing ever is."""
    return -1 if mode is LimitMode.SOFT else units * (100 + grace_percent) // 100
