"""What the machine draws: charges, windows, tariffs and rights that make the interesting cases frequent."""

from __future__ import annotations

from hypothesis import strategies as st

from billing_core.contract.snapshot import (
    Budget,
    Entitlement,
    FeatureKind,
    Guard,
    Limit,
    Rate,
    RateCount,
    SpendCap,
    Tariff,
    Tier,
    Window,
    WindowKind,
)

HOUR, DAY = 3_600_000, 86_400_000
LARGEST = 2**53 - 1
FEATURES = ("calls", "tokens", "seats", "badge")

days = st.integers(min_value=-2, max_value=3)
indexes = st.integers(0, 1)


def one_in(count: int) -> st.SearchStrategy[bool]:
    """True that seldom."""
    return st.sampled_from([False] * (count - 1) + [True])


@st.composite
def quantities(draw: st.DrawFn) -> int:
    """Small ones, and now and then one at the end of what a double carries."""
    return draw(st.sampled_from([1000, LARGEST])) if draw(one_in(40)) else draw(st.integers(0, 12))


@st.composite
def charge_lists(draw: st.DrawFn, least: int = 1) -> list[tuple[str, int]]:
    """One to three charges, mostly of features that exist, sometimes twice the same."""
    codes = st.just("ghost") if draw(one_in(25)) else st.sampled_from(FEATURES)
    return draw(st.lists(st.tuples(codes, quantities()), min_size=least, max_size=3))


@st.composite
def signed_lists(draw: st.DrawFn) -> list[tuple[str, int | str]]:
    """The same, and gauges set or lowered; seldom a sign where none belongs."""
    charges: list[tuple[str, int | str]] = []
    for feature, quantity in draw(charge_lists()):
        signed = feature == "seats" or draw(one_in(60))
        charges.append((feature, f"{draw(st.sampled_from(['', '', '-', '=']))}{quantity}" if signed else quantity))
    return charges


def windows(start_ms: int) -> st.SearchStrategy[Window]:
    """Windows that count now, and some that are over or have not begun; no edge within half an hour of any now."""
    grid = start_ms + HOUR // 2
    counting = [
        Window(kind=WindowKind.LIFETIME),
        *(Window(kind=WindowKind.STEPS, anchor_ms=grid, every_ms=every) for every in (HOUR, DAY, 2 * DAY)),
        Window(kind=WindowKind.EDGES, edges_ms=tuple(grid + day * DAY for day in (-2, 0, 1, 3, 90))),
    ]
    over = Window(kind=WindowKind.EDGES, edges_ms=(grid - 2 * DAY, grid - DAY))
    return st.sampled_from([*counting * 4, over])


def limit_windows(start_ms: int) -> st.SearchStrategy[Window]:
    """Those of prices, and rolling ones of days."""
    rolling = [Window(kind=WindowKind.ROLLING, every_ms=days * DAY) for days in (1, 2, 5)]
    return st.one_of(windows(start_ms), windows(start_ms), st.sampled_from(rolling))


@st.composite
def limits(draw: st.DrawFn, start_ms: int, counter: str) -> Limit:
    """Hard, soft and in between; some carry, some count from an instant on."""
    window = draw(limit_windows(start_ms))
    units = draw(st.sampled_from([0, 3, 10, 30, 60, LARGEST]))
    carries = window.kind is not WindowKind.ROLLING and draw(one_in(3))
    return Limit(
        counter=counter,
        units=units,
        ceiling=draw(st.sampled_from([-1, units, min(units + 5, LARGEST)])),
        window=window,
        since_ms=draw(st.sampled_from([0, 0, start_ms - DAY, start_ms + HOUR // 2 - 3 * DAY, start_ms + DAY])),
        carry_units=draw(st.sampled_from([5, 25, LARGEST])) if carries else 0,
    )


@st.composite
def rates(draw: st.DrawFn, counter: str) -> Rate:
    """So slow that nothing drains by itself, and so fast that everything has drained after a day."""
    return Rate(
        counter=counter,
        units=draw(st.sampled_from([1, 3, 20])),
        per_ms=draw(st.sampled_from([HOUR, DAY, 2 * DAY])),
        burst_units=draw(st.sampled_from([1, 4, 20, 200])),
        counts=draw(st.sampled_from(RateCount)),
    )


@st.composite
def guards(draw: st.DrawFn, start_ms: int, feature: str, *, most_limits: int = 2) -> Guard:
    """Mostly a limit or two, seldom a rate, sometimes a bound on open holds."""
    count = draw(st.integers(0, most_limits))
    return Guard(
        limits=tuple(draw(limits(start_ms, f"{feature}@{n}")) for n in range(count)),
        rates=(draw(rates(f"{feature}~0")),) if draw(one_in(6)) else (),
        concurrent=draw(st.sampled_from([-1, -1, -1, 1, 2])),
    )


@st.composite
def spend_caps(draw: st.DrawFn, start_ms: int) -> SpendCap:
    """Money a window, in the currency that most prices have."""
    currency = draw(st.sampled_from(["USD", "USD", "EUR"]))
    nanos = draw(st.sampled_from([0, 40, 200, 900, LARGEST]))
    return SpendCap(
        counter=f"${currency}@0",
        currency=currency,
        nanos=nanos,
        ceiling=draw(st.sampled_from([-1, nanos, nanos])),
        window=draw(limit_windows(start_ms)),
        since_ms=draw(st.sampled_from([0, 0, start_ms - DAY])),
    )


@st.composite
def budgets(draw: st.DrawFn, start_ms: int) -> dict[str, Budget]:
    """Budgets of some nodes, some kinds, and of the customer."""
    names = draw(st.sets(st.sampled_from(["", "team:ml", "team:*", "key:*", "team:ml/key:k1"]), max_size=3))
    told: dict[str, Budget] = {}
    for name in sorted(names):
        features = draw(st.sets(st.sampled_from(FEATURES), max_size=2)) if name else set[str]()
        told[name] = Budget(
            guards={code: draw(guards(start_ms, code, most_limits=1)) for code in sorted(features)},
            caps=(draw(spend_caps(start_ms)),) if draw(one_in(2)) else (),
        )
    return told


paths = st.sampled_from(["", "", "", "team:ml", "team:ml/key:k1", "key:k1", "team:it/project:p/user:u/key:k"])


@st.composite
def tariffs(draw: st.DrawFn, windows_by_price: dict[str, Window]) -> Tariff:
    """Small tariffs, so that tiers and remainders are met often, and now and then a price beyond 2^53."""
    own, shared = windows_by_price
    price_id = draw(st.sampled_from([own, own, shared]))
    bounds = sorted(draw(st.sets(st.integers(1, 25), max_size=2)))
    rate = st.just(LARGEST) if draw(one_in(25)) else st.integers(0, 40)
    return Tariff(
        price_id=price_id,
        currency="EUR" if draw(one_in(12)) else "USD",
        package_units=draw(st.sampled_from([1, 1, 3])),
        batch=draw(st.sampled_from([1, 3, 7])),
        tiers=tuple(
            Tier(upto=upto, nanos_per_batch=draw(rate), flat_nanos=draw(st.sampled_from([0, 0, 5])))
            for upto in (*bounds, 0)
        ),
        window=windows_by_price[price_id],
        prepaid=not draw(one_in(6)),
    )


@st.composite
def entitlements(draw: st.DrawFn, start_ms: int, feature: str) -> Entitlement:
    """Any kind of right to one feature."""
    if feature == "badge":
        return Entitlement(kind=FeatureKind.STATIC, enabled=not draw(one_in(12)), static_value="gold")
    guard = draw(guards(start_ms, feature))
    if feature == "seats":
        return Entitlement(kind=FeatureKind.GAUGE, enabled=True, guard=guard, shadow=draw(one_in(15)))
    count = draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
    daily = Window(kind=WindowKind.STEPS, anchor_ms=start_ms + HOUR // 2, every_ms=DAY)
    of_price = {f"{feature}_price": draw(windows(start_ms)), "shared_price": daily}  # a price has one window
    return Entitlement(
        kind=draw(st.sampled_from([FeatureKind.SWITCH, FeatureKind.METERED])),
        enabled=not draw(one_in(15)),
        guard=guard,
        tariffs=tuple(draw(tariffs(of_price)) for _ in range(count)),
        outage_units=draw(st.sampled_from([0, 0, 7])),
        plan=draw(st.sampled_from(["", "pro", "team.2026"])),
        shadow=draw(one_in(15)),
    )
