"""Laws of pricing that hold for every price and every quantity."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from billing_core.catalog.document import Model, PackageRounding, Price, PriceTier
from billing_core.catalog.rate import Method, RateTable, RateTier, rates_of
from billing_core.catalog.tariff import tariff_of
from billing_core.contract.snapshot import Window, WindowKind
from billing_core.pricing.charge import PartKind, charge_between, charge_of, mirrored
from billing_core.pricing.cumulative import cumulative_nanos, debit_nanos, hold_nanos
from billing_core.pricing.discount import Coupon, DiscountOrder, discounts_of
from billing_core.pricing.record import exact_of, exact_text

FOREVER = Window(kind=WindowKind.LIFETIME)
amounts = st.fractions(min_value=0, max_value=10**6, max_denominator=1000)
quantities = st.fractions(min_value=0, max_value=10**6, max_denominator=1000)
decimals = st.decimals(min_value=0, max_value=1000, places=6, allow_nan=False).map(str)
SOMETIMES = st.booleans()


@st.composite
def tables(draw: st.DrawFn, *, bounded: bool = True, method: Method | None = None) -> RateTable:
    """Any table of rates that is not negative."""
    bounds = sorted(draw(st.sets(st.fractions(min_value=1, max_value=10**5, max_denominator=100), max_size=4)))
    tiers = tuple(
        RateTier(upto=upto, unit_nanos=draw(amounts), flat_nanos=draw(amounts)) for upto in (*bounds, None)
    )
    size = draw(st.integers(min_value=1, max_value=50))
    low = draw(amounts)
    return RateTable(
        tiers=tiers,
        method=method or draw(st.sampled_from(Method)),
        package_units=size,
        package_rounding=draw(st.sampled_from(PackageRounding)),
        free_units=draw(st.integers(min_value=0, max_value=100)),
        first_flat_always_due=draw(SOMETIMES),
        minimum_nanos=low if bounded and draw(SOMETIMES) else None,
        maximum_nanos=low + draw(amounts) if bounded and draw(SOMETIMES) else None,
    )


@st.composite
def prepaid_prices(draw: st.DrawFn) -> Price:
    """A price that a catalog would take as prepaid."""
    size = draw(st.integers(min_value=1, max_value=50))
    words = {
        "code": "p",
        "meter": "m",
        "per": draw(st.integers(min_value=1, max_value=1000)),
        "package_units": size,
        "package_rounding": draw(st.sampled_from([PackageRounding.UP, PackageRounding.NONE])),
    }
    if draw(SOMETIMES):
        flat = draw(decimals)
        free = size * draw(st.integers(min_value=0, max_value=5))
        model = draw(st.sampled_from([Model.PER_UNIT, Model.PACKAGE]))
        return Price(**words, model=model, unit_amount=draw(decimals), flat_amount=flat, free_units=free)
    bounds = sorted(draw(st.sets(st.integers(min_value=1, max_value=10**4), max_size=4)))
    tiers = tuple(
        PriceTier(upto=upto, unit_amount=draw(decimals), flat_amount=draw(decimals)) for upto in (*bounds, None)
    )
    return Price(**words, model=Model.GRADUATED, tiers=tiers)


@given(tables(), quantities)
def test_the_parts_of_a_charge_are_the_whole_charge(table: RateTable, quantity: Fraction) -> None:
    """Amounts add up to the amount, quantities to the packages, and nothing is negative."""
    charge = charge_of(table, quantity)
    assert sum(part.amount_nanos for part in charge.parts) == charge.amount_nanos
    assert all(part.amount_nanos >= 0 and part.capped_nanos >= 0 for part in charge.parts)
    tiers = [part for part in charge.parts if part.kind is PartKind.TIER]
    assert sum(part.quantity for part in tiers) in (charge.packages, 0)
    for part in tiers:
        assert part.amount_nanos + part.capped_nanos == part.quantity * part.unit_nanos + part.flat_nanos


@given(tables(method=Method.GRADUATED), st.lists(quantities, min_size=1, max_size=6))
def test_lines_that_follow_one_another_add_up_to_the_whole(table: RateTable, steps: list[Fraction]) -> None:
    """However a period is cut: the sum of its lines is what its last total costs."""
    totals = sorted(steps)
    lines = [charge_between(table, before=None, after=totals[0], closing=len(totals) == 1)]
    lines += [
        charge_between(table, before=before, after=after, closing=place == len(totals) - 2)
        for place, (before, after) in enumerate(pairwise(totals))
    ]
    assert sum(line.amount_nanos for line in lines) == charge_of(table, totals[-1]).amount_nanos
    assert sum(line.packages for line in lines) == table.packages(totals[-1])


@given(tables(method=Method.GRADUATED), quantities, quantities)
def test_more_units_never_cost_less_by_graduated_tiers(table: RateTable, one: Fraction, other: Fraction) -> None:
    """Rates are not negative, so the cumulative price only rises."""
    fewer, more = sorted((one, other))
    assert charge_of(table, fewer).amount_nanos <= charge_of(table, more).amount_nanos


@given(tables(), quantities)
def test_a_charge_stays_within_its_bounds(table: RateTable, quantity: Fraction) -> None:
    """The minimum is always reached, the maximum never passed."""
    amount = charge_of(table, quantity).amount_nanos
    assert table.minimum_nanos is None or amount >= table.minimum_nanos
    assert table.maximum_nanos is None or amount <= table.maximum_nanos


@given(tables(bounded=False), amounts, quantities)
def test_equal_tiers_are_one_rate(table: RateTable, unit: Fraction, quantity: Fraction) -> None:
    """Graduated, volume and per unit are the same where every tier has the same rate and no flat amount."""
    tiers = tuple(RateTier(upto=tier.upto, unit_nanos=unit) for tier in table.tiers)
    for method in Method:
        equal = RateTable(
            tiers=tiers, method=method, package_units=table.package_units, package_rounding=table.package_rounding
        )
        assert charge_of(equal, quantity).amount_nanos == equal.packages(quantity) * unit


@given(tables(method=Method.GRADUATED))
def test_nothing_used_costs_nothing_unless_the_price_says_so(table: RateTable) -> None:
    """Only a first flat amount that is always due, or a minimum, is owed at zero."""
    first = table.tiers[0].flat_nanos if table.first_flat_always_due else Fraction(0)
    bounded = min(first, table.maximum_nanos) if table.maximum_nanos is not None else first
    assert charge_of(table, 0).amount_nanos == max(bounded, table.minimum_nanos or Fraction(0))


@given(tables(), quantities)
def test_a_mirror_image_turned_twice_is_the_charge(table: RateTable, quantity: Fraction) -> None:
    """And turned once it is worth just as much with the other sign."""
    charge = charge_of(table, quantity)
    assert mirrored(mirrored(charge)) == charge
    assert mirrored(charge).amount_nanos == -charge.amount_nanos


@given(prepaid_prices(), st.integers(min_value=0, max_value=10**6))
def test_the_gate_and_the_invoice_have_one_price(price: Price, units: int) -> None:
    """The tariff that the scripts compute and the rates that an invoice is made of say the same amount."""
    tariff = tariff_of(price, price_id="p:1:p", currency="USD", window=FOREVER)
    assert cumulative_nanos(tariff, units) == charge_of(rates_of(price), units).amount_nanos


@given(prepaid_prices(), st.lists(st.integers(min_value=0, max_value=10**4), max_size=20))
def test_debits_carry_their_remainder(price: Price, debits: list[int]) -> None:
    """The sum of all debits is the floor of the exact price, so it never drifts by a nano or more."""
    tariff = tariff_of(price, price_id="p:1:p", currency="USD", window=FOREVER)
    used = taken = 0
    for units in debits:
        cost = debit_nanos(tariff, used_units=used, units=units)
        assert 0 <= cost <= hold_nanos(tariff, used_units=used, units=units)
        used, taken = used + units, taken + cost
    exact = cumulative_nanos(tariff, used)
    assert taken == exact.numerator // exact.denominator


@given(st.fractions())
def test_an_exact_text_reads_back_to_its_number(value: Fraction) -> None:
    """And has one spelling."""
    assert exact_of(exact_text(value)) == value
    assert exact_text(exact_of(exact_text(value))) == exact_text(value)


coupons = st.one_of(
    st.fractions(min_value=0, max_value=100, max_denominator=1000).map(lambda p: Coupon(code="p", percent=p)),
    st.integers(min_value=0, max_value=10**6).map(lambda f: Coupon(code="f", fixed_minor=f)),
)


@given(
    st.integers(min_value=0, max_value=10**7),
    st.lists(coupons, max_size=5).map(tuple),
    st.sampled_from(DiscountOrder),
)
def test_discounts_never_take_more_than_the_line(
    amount: int, given_coupons: tuple[Coupon, ...], order: DiscountOrder
) -> None:
    """Every coupon is on the list once, takes nothing negative, and what is left is not negative."""
    taken = discounts_of(amount, given_coupons, order=order)
    assert sorted(one.code for one in taken) == sorted(one.code for one in given_coupons)
    assert all(one.off_minor >= 0 for one in taken)
    assert sum(one.off_minor for one in taken) <= amount
