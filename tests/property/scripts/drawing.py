"""What the machine draws: charges, windows, tariffs and rights that make the interesting cases frequent."""

from __future__ import annotations

from hypothesis import strategies as st

from billing_core.contract.snapshot import (
    Entitlement,
    FeatureKind,
    LimitMode,
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


@st.composite
def tariffs(draw: st.DrawFn, window: Window, feature: str) -> Tariff:
    """Small tariffs, so that tiers and remainders are met often, and now and then a price beyond 2^53."""
    bounds = sorted(draw(st.sets(st.integers(1, 25), max_size=2)))
    rate = st.just(LARGEST) if draw(one_in(25)) else st.integers(0, 40)
    return Tariff(
        price_id=draw(st.sampled_from([f"{feature}_price", f"{feature}_price", "shared_price"])),
        currency="EUR" if draw(one_in(12)) else "USD",
        package_units=draw(st.sampled_from([1, 1, 3])),
        batch=draw(st.sampled_from([1, 3, 7])),
        tiers=tuple(
            Tier(upto=upto, nanos_per_batch=draw(rate), flat_nanos=draw(st.sampled_from([0, 0, 5])))
            for upto in (*bounds, 0)
        ),
        window=window,
    )


@st.composite
def entitlements(draw: st.DrawFn, start_ms: int, feature: str) -> Entitlement:
    """Any kind of right to one feature."""
    if feature == "badge":
        return Entitlement(kind=FeatureKind.STATIC, enabled=not draw(one_in(12)), static_value="gold")
    tariff = () if draw(one_in(4)) else (draw(tariffs(draw(windows(start_ms)), feature)),)
    return Entitlement(
        kind=draw(st.sampled_from([FeatureKind.SWITCH, FeatureKind.METERED])),
        enabled=not draw(one_in(15)),
        limit_units=draw(st.sampled_from([-1, -1, -1, 3, 30, 60, LARGEST])),
        limit_mode=draw(st.sampled_from(LimitMode)),
        window=draw(windows(start_ms)),
        tariff=tariff,
    )
