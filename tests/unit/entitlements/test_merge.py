"""One rule of merging a test: adding, widening, narrowing."""

from __future__ import annotations

import msgspec
import pytest

from billing_core.catalog.guard import EntitlementTerms, Guard, Limit, LimitMode
from billing_core.entitlements.merge import add, narrow, narrowed, widen
from billing_core.values.money import MAX_EXACT


def terms(feature: str = "calls", **words: object) -> EntitlementTerms:
    return msgspec.convert({"feature": feature, **words}, EntitlementTerms)


def guard(**words: object) -> Guard:
    return msgspec.convert(words, Guard)


def limit(units: int, interval: str = "month", **more: object) -> dict[str, object]:
    return {"units": units, "interval": interval, **more}


def rate(units: int, burst: int | None = None, **more: object) -> dict[str, object]:
    return {"units": units, "per": "minute", **({"burst": burst} if burst else {}), **more}


def units(told: Guard) -> dict[str, int]:
    return {one.window: one.units for one in told.limits}


class TestAdding:
    def test_limits_on_the_same_windows_add_up_n_times(self) -> None:
        """1,000 and twice 500; the day has no part in it."""
        base = terms(limits=[limit(1000, rollover_units=10), limit(100, "day")])
        found = add(base, terms(limits=[limit(500, rollover_units=5)]), quantity=2)
        assert units(found) == {"month": 2000, "day": 100}
        assert found.limits[0].rollover_units == 20

    def test_what_the_base_does_not_bound_stays_free(self) -> None:
        """An add-on never takes anything away."""
        base = terms(limits=[limit(10, "day")])
        more = terms(limits=[limit(500)], rates=[rate(1)], concurrent=1, levels={"key": {"concurrent": 1}})
        assert add(base, more, quantity=3) == base

    def test_concurrency_adds(self) -> None:
        """2 and 3 times 4; what the add-on does not say adds nothing."""
        assert add(terms(concurrent=2), terms(concurrent=4), quantity=3).concurrent == 14
        assert add(terms(concurrent=2), terms(), quantity=3).concurrent == 2

    def test_of_two_rates_the_larger_counts_however_many_add_ons_there_are(self) -> None:
        """Units and burst each."""
        found = add(terms(rates=[rate(60, 5)]), terms(rates=[rate(50, 10), rate(9, counts="units")]), quantity=9)
        assert [(one.units, one.burst_units, one.bucket) for one in found.rates] == [(60, 10, "minute")]

    def test_switches_or(self) -> None:
        """Off and on is on."""
        off = terms("export", enabled=False)
        assert add(off, terms("export"), quantity=1).enabled
        assert add(None, terms("export"), quantity=1).enabled

    def test_a_static_value_replaces_the_one_before(self) -> None:
        """Values do not add up."""
        assert add(terms(value="10"), terms(value="20"), quantity=5).value == "20"

    def test_where_nothing_was_the_add_on_is_the_entitlement_n_times(self) -> None:
        """Its levels too; a rate is not multiplied."""
        words = {"limits": [limit(5, rollover_units=1)], "rates": [rate(7)], "concurrent": 2}
        more = terms(**words, levels={"key": words}, on_outage="allow", outage_units=3)
        for base in (None, terms(enabled=False, limits=[limit(1)])):
            found = add(base, more, quantity=3)
            for one in (found, *found.levels.told.values()):
                assert (units(one), one.limits[0].rollover_units, one.concurrent) == ({"month": 15}, 3, 6)
                assert one.rates[0].units == 7
            assert found.outage_units == 3

    def test_soft_beats_hard_and_the_larger_grace_counts(self) -> None:
        """A soft limit has no grace."""
        (found,) = add(
            terms(limits=[limit(5, grace_percent=5)]), terms(limits=[limit(5, grace_percent=9)]), quantity=1
        ).limits
        assert (found.units, found.grace_percent, found.mode) == (10, 9, LimitMode.HARD)
        (found,) = add(
            terms(limits=[limit(5, grace_percent=5)]), terms(limits=[limit(5, mode="soft")]), quantity=1
        ).limits
        assert (found.units, found.grace_percent, found.mode) == (10, 0, LimitMode.SOFT)

    def test_levels_add_up_where_the_base_guards_them(self) -> None:
        """Each like the customer's own guard."""
        base = terms(levels={"key": {"limits": [limit(10)]}, "team": {"concurrent": 1}})
        more = terms(levels={"key": {"limits": [limit(5)]}, "user": {"concurrent": 1}})
        found = add(base, more, quantity=2).levels.told
        assert {level.value: (units(one), one.concurrent) for level, one in found.items()} == {
            "key": ({"month": 20}, None),
            "team": ({}, 1),
        }

    def test_the_outage_is_answered_as_the_base_says(self) -> None:
        """An add-on has no say in it."""
        base = terms(on_outage="allow", outage_units=5)
        assert add(base, terms(), quantity=1).outage_units == 5
        assert add(terms(), base, quantity=1).outage_units == 0

    @pytest.mark.parametrize("words", [{}, {"grace_percent": 1000}, {"rollover_units": MAX_EXACT}])
    def test_sums_stay_in_what_scripts_can_count(self, words: dict[str, object]) -> None:
        """Below 2^53, grace and rollover included."""
        base = terms(limits=[limit(MAX_EXACT // 11, **words)])
        (found,) = add(base, base, quantity=1_000_000).limits
        assert 0 < found.ceiling + found.rollover_units <= MAX_EXACT


class TestWidening:
    def test_a_bound_stays_only_where_both_sides_have_it(self) -> None:
        """What either allows is allowed."""
        base = terms(limits=[limit(1000), limit(100, "day")], rates=[rate(5)], concurrent=2)
        found = widen(base, terms(limits=[limit(500), limit(9, "week")]))
        assert (units(found), found.rates, found.concurrent) == ({"month": 1000}, (), None)

    def test_of_two_bounds_the_wider_one_counts(self) -> None:
        """Units, rates, bursts, holds; soft is wider than hard. Nothing adds up."""
        base = terms(limits=[limit(5, mode="soft")], rates=[rate(5, 9)], concurrent=2)
        found = widen(base, terms(limits=[limit(7)], rates=[rate(6)], concurrent=1))
        assert (units(found), found.limits[0].ceiling, found.concurrent) == ({"month": 7}, -1, 2)
        assert (found.rates[0].units, found.rates[0].burst_units) == (6, 9)

    def test_where_nothing_was_the_trial_is_the_entitlement(self) -> None:
        """As it stands."""
        trial = terms(limits=[limit(7)], value="x")
        assert widen(None, trial) == widen(terms(enabled=False), trial) == trial

    def test_levels_are_widened_alike(self) -> None:
        """A level that only one side guards is free."""
        base = terms(levels={"key": {"limits": [limit(10)]}, "team": {"concurrent": 1}})
        found = widen(base, terms(levels={"key": {"limits": [limit(20)]}})).levels.told
        assert {level.value: units(one) for level, one in found.items()} == {"key": {"month": 20}}

    def test_a_static_value_is_the_trials(self) -> None:
        """For as long as it lasts."""
        assert widen(terms(value="10"), terms(value="99")).value == "99"


class TestNarrowing:
    def test_every_bound_of_either_side_stays(self) -> None:
        """A budget adds bounds."""
        found = narrow(guard(limits=[limit(10)], rates=[rate(5)]), guard(limits=[limit(3, "day")], concurrent=2))
        assert (units(found), len(found.rates), found.concurrent) == ({"month": 10, "day": 3}, 1, 2)

    @pytest.mark.parametrize(
        ("one", "other", "ceiling"),
        [
            (limit(10), limit(5), 5),
            (limit(5), limit(10), 5),
            (limit(10), limit(9, grace_percent=50), 10),
            (limit(5, mode="soft"), limit(100), 100),
            (limit(5, mode="soft"), limit(3, mode="soft"), -1),
        ],
    )
    def test_of_two_on_the_same_windows_the_one_that_refuses_first_counts(
        self, one: dict[str, object], other: dict[str, object], ceiling: int
    ) -> None:
        """A grace is counted in; soft never refuses."""
        (found,) = narrow(guard(limits=[one]), guard(limits=[other])).limits
        assert found.ceiling == ceiling

    def test_of_two_rates_and_holds_the_smaller_count(self) -> None:
        """Units and burst each."""
        found = narrow(guard(rates=[rate(5, 9)], concurrent=4), guard(rates=[rate(6)], concurrent=3))
        assert (found.rates[0].units, found.rates[0].burst_units, found.concurrent) == (5, 6, 3)

    def test_the_rest_of_the_entitlement_is_untouched(self) -> None:
        """Value, levels, outage."""
        base = terms(value="x", levels={"key": {"concurrent": 1}}, on_outage="allow", outage_units=2)
        found = narrowed(base, guard(limits=[limit(1)]))
        assert (found.value, found.levels, found.outage_units) == ("x", base.levels, 2)
        assert units(found) == {"month": 1}


def test_a_limit_counts_by_its_windows_alone() -> None:
    """Calendar and subscription months are two bounds."""
    base = guard(limits=[limit(10)])
    assert len(narrow(base, guard(limits=[limit(5, anchor="subscription")])).limits) == 2
    assert Limit(units=1).window == "lifetime"
