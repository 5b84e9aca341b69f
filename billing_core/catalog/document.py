"""The catalog document: what an operator writes in TOML, and what `PUT /v1/catalog` takes as JSON.

A **meter** says how events of one name become a quantity. A **feature** is something a caller can be entitled to; a
check on feature X leaves a usage event named X with its quantity, so the meter of X reads event X, field
`quantity`, aggregation `sum`. A **plan** is what a customer subscribes to: a fee that is billed in advance,
entitlements, prices on meters, and caps on what may be spent. An **add-on** is taken with a plan and adds to its
entitlements. These are the bare words (those of limits stand in `guard`); `catalog.rule` says what makes them a
catalog.

Amounts are decimal text of the currency's major unit ("0.0083"), never a number: a number in TOML or JSON has
already been a float somewhere. Defaults are left out when a document is written, so that a field that is added
tomorrow does not change the digest of a plan that does not use it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from billing_core.catalog.guard import EntitlementTerms, PlanSpendCap
from billing_core.values.ids import Code
from billing_core.values.period import Interval

QUANTITY_FIELD = "quantity"
"""The field that every decision's usage event has; all other fields are looked up in the event's properties."""


class Aggregation(StrEnum):
    """How a meter makes one quantity of many events."""

    COUNT = "count"
    SUM = "sum"
    MAX = "max"
    UNIQUE = "unique"
    LATEST = "latest"


class FeatureKind(StrEnum):
    """Whether a feature is on or off, has a value, is counted, or has a level that goes up and down."""

    SWITCH = "switch"
    STATIC = "static"
    METERED = "metered"
    GAUGE = "gauge"


class Enforcement(StrEnum):
    """Whether refusals are made, or only recorded (`shadow`: what would have been refused is let through)."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class PlanAnchor(StrEnum):
    """Where a plan's billing periods start: at calendar edges, or on the day of the subscription."""

    CALENDAR = "calendar"
    SUBSCRIPTION = "subscription"


class Model(StrEnum):
    """How a price makes money of a quantity."""

    FLAT = "flat"
    PER_UNIT = "per_unit"
    GRADUATED = "graduated"
    VOLUME = "volume"
    PACKAGE = "package"


class Pay(StrEnum):
    """When a price is paid: on the invoice after the period, or out of the wallet as it happens."""

    ARREARS = "arrears"
    PREPAID = "prepaid"


class PackageRounding(StrEnum):
    """What a begun package counts: a whole one, nothing, or its exact share."""

    UP = "up"
    DOWN = "down"
    NONE = "none"


class PeriodMeasure(StrEnum):
    """A batch as long as the period: 15.00 a host-month is 15.00 per `hours_of_period` host-hours."""

    DAYS = "days_of_period"
    HOURS = "hours_of_period"
    SECONDS = "seconds_of_period"


class Unit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A credit unit of the tenant's own, such as AIC: wallets and prepaid prices may be in it."""

    code: str
    name: str = ""


class Meter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Events of one name become a quantity.

    `field` names what is summed, compared or told apart; `count` takes none. `scale` is the number of digits after
    the point that a quantity may have. `group_by` names properties by which the quantity is also told apart.
    """

    code: Code
    event: Code
    aggregation: Aggregation
    field: str = ""
    scale: int = 0
    group_by: tuple[str, ...] = ()


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Something that a caller can be entitled to; `meter` names the meter that counts a metered one or a gauge."""

    code: Code
    kind: FeatureKind
    name: str = ""
    meter: str = ""


class PriceTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tier of a table: above the previous bound, up to and including `upto`; the last one has no bound.

    Units: `upto` counts packages where the price has packages, else the meter's units; decimals as text.
    """

    upto: int | str | None = None
    unit_amount: str = "0"
    flat_amount: str = "0"


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the quantity of one meter becomes money in a billing period.

    Units: `unit_amount` buys `per` units, or `per` packages where `package_units` is above one (or the model is
    `package`). A quantity is divided by `package_units` before anything else looks at it; `package_rounding` says
    what a begun package counts. `free_units` are taken off before that. `flat_amount` is due once the quantity is
    above zero, at zero too with `first_flat_always_due`. The minimum and maximum bound what a period costs.

    A prepaid price may be in another `currency` than the plan's, or in a credit unit: it is paid out of that wallet
    and never out of another, and nothing of it is ever due on an invoice.
    """

    code: Code
    meter: Code
    model: Model
    name: str = ""
    unit_amount: str = ""
    flat_amount: str = ""
    per: int | PeriodMeasure = 1
    package_units: int = 1
    package_rounding: PackageRounding = PackageRounding.UP
    free_units: int = 0
    tiers: tuple[PriceTier, ...] = ()
    first_flat_always_due: bool = False
    minimum_amount: str = ""
    maximum_amount: str = ""
    pay: Pay = Pay.ARREARS
    feature: str = ""
    currency: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a customer subscribes to. `fee_amount` is billed in advance at each period's start.

    `spend_caps` bound the money of a window, at the customer and as defaults of the levels below it.
    """

    code: Code
    currency: str
    name: str = ""
    interval: Interval = Interval.MONTH
    anchor: PlanAnchor = PlanAnchor.CALENDAR
    time_zone: str = "UTC"
    fee_amount: str = "0"
    enforcement: Enforcement = Enforcement.ENFORCE
    entitlements: tuple[EntitlementTerms, ...] = ()
    prices: tuple[Price, ...] = ()
    spend_caps: tuple[PlanSpendCap, ...] = ()


class Addon(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is taken with a plan, so many of it: its entitlements add to the plan's."""

    code: Code
    name: str = ""
    entitlements: tuple[EntitlementTerms, ...] = ()


class CatalogDocument(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole catalog as it is written; not yet known to hold together."""

    units: tuple[Unit, ...] = ()
    meters: tuple[Meter, ...] = ()
    features: tuple[Feature, ...] = ()
    plans: tuple[Plan, ...] = ()
    addons: tuple[Addon, ...] = ()
