"""Laws of the books for every story of a wallet: top-ups, burn, overdrafts drawn and repaid, lapses, in any order.

A plain model of a wallet (no scripts, no database) makes the movements; `revenue.burn` books them, stretch by
stretch, cut wherever Hypothesis likes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.account import Account
from billing_core.ledger.booking import Cause, top_up_paid
from billing_core.ledger.transfer import Transfer
from billing_core.revenue.burn import Booked, Burn, BurnAct, Counted, booked
from billing_core.wallets.grant import share_nanos

DAY = datetime(2026, 3, 1, tzinfo=UTC)
amounts = st.integers(min_value=1, max_value=2**40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("paid"), amounts, st.one_of(st.none(), amounts)),
        st.tuples(st.just("promotional"), amounts, st.none()),
        st.tuples(st.just("overdraft"), amounts, st.one_of(st.none(), amounts)),
        st.tuples(st.just("burn"), amounts, st.none()),
        st.tuples(st.just("lapse"), st.integers(min_value=0, max_value=7), st.none()),
        st.tuples(st.just("night"), st.just(0), st.none()),
    ),
    max_size=25,
)


class Block:
    """A grant of the model: what it is, what it costs, what has left it."""

    def __init__(self, name: str, kind: str, *, amount: int, price: int) -> None:
        self.name, self.kind, self.amount, self.price = name, kind, amount, price
        self.spent = self.lapsed = 0

    @property
    def left(self) -> int:
        return self.amount - self.spent - self.lapsed

    @property
    def share(self) -> int:
        """What of its price the books must have: of an overdraft, what is drawn."""
        moved = self.spent if self.kind == "overdraft" else self.spent + self.lapsed
        return self.price * moved // self.amount


class Story:
    """A wallet and its movements; a price of None is money, which costs what it is."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.moves: list[tuple[Block, BurnAct, int, datetime]] = []
        self.topped_up = 0
        self.day = DAY

    def take(self, step: tuple[str, int, int | None]) -> None:
        kind, number, price = step
        if kind == "night":
            self.day += timedelta(days=1)
        elif kind == "burn":
            self._burn(number)
        elif kind == "lapse":
            self._lapse(number)
        else:
            block = Block(f"g{len(self.blocks)}", kind, amount=number, price=number if price is None else price)
            self.blocks.append(block)
            if kind == "paid":
                self.topped_up += block.price
                self._repay(block)

    def _move(self, block: Block, act: BurnAct, nanos: int) -> None:
        if nanos:
            if act is BurnAct.LAPSE:
                block.lapsed += nanos
            else:
                block.spent += nanos
            self.moves.append((block, act, nanos, self.day))

    def _repay(self, paid: Block) -> None:
        for over in self.blocks:
            if over.kind == "overdraft":
                nanos = min(paid.left, over.spent)
                self._move(paid, BurnAct.REPAY, nanos)
                self._move(over, BurnAct.REPAY, -nanos)

    def _burn(self, nanos: int) -> None:
        order = sorted(self.blocks, key=lambda block: block.kind == "overdraft")
        if nanos <= sum(block.left for block in order):
            for block in order:
                part = min(nanos, block.left)
                self._move(block, BurnAct.BURN, part)
                nanos -= part

    def _lapse(self, place: int) -> None:
        if place < len(self.blocks):
            self._move(self.blocks[place], BurnAct.LAPSE, self.blocks[place].left)


def burns_of(story: Story, *, first: int, last: int) -> Iterator[Burn]:
    """What the query makes of a stretch of the movements."""
    sums: Counter[tuple[str, bool, BurnAct, datetime]] = Counter()
    for block, act, nanos, day in story.moves[first:last]:
        over = block.kind == "overdraft"
        if block.kind != "promotional" and not (over and act is BurnAct.LAPSE):
            sums["" if block.price == block.amount else block.name, over, act, day] += nanos
    for (name, over, act, day), nanos in sums.items():
        yield Burn(
            tenant_id="t",
            customer_id="c",
            currency="USD",
            grant_id=name,
            overdrawn=over,
            act=act,
            day=day,
            nanos=nanos,
        )


def book(story: Story, cuts: list[int]) -> Iterator[Transfer]:
    """All transfers of a story whose stretches end at these movements."""
    counted = {
        block.name: Counted(
            tenant_id="t", grant_id=block.name, amount_nanos=block.amount, price_nanos=block.price, booked_nanos=0
        )
        for block in story.blocks
    }
    paid = top_up_paid(cause("top-ups"), story.topped_up)
    yield from [] if paid is None else [paid]
    ends = sorted({*(cut % (len(story.moves) + 1) for cut in cuts), len(story.moves)})
    first = 0
    for end in ends:
        burns = list(burns_of(story, first=first, last=end))
        asked = [counted[name] for name in sorted({one.grant_id for one in burns} - {""})]
        made: Booked = booked(burns, asked, source=f"s{end}")
        counted |= {one.grant_id: one for one in made.counted}
        yield from made.transfers
        first = end


def cause(source: str) -> Cause:
    return Cause(tenant_id="t", customer_id="c", currency="USD", source=source, booked_at=DAY)


def balances(transfers: list[Transfer]) -> Counter[Account]:
    found: Counter[Account] = Counter()
    for transfer in transfers:
        for entry in transfer.entries:
            found[entry.account] += entry.nanos
    return found


def told(steps: list[tuple[str, int, int | None]]) -> Story:
    story = Story()
    for step in steps:
        story.take(step)
    return story


def total(story: Story, chosen: Callable[[Block], int]) -> int:
    return sum(chosen(block) for block in story.blocks)


@given(STEPS, st.lists(st.integers(min_value=0, max_value=100), max_size=6))
def test_the_books_have_the_exact_share_of_every_grant(
    steps: list[tuple[str, int, int | None]], cuts: list[int]
) -> None:
    """Liability, receivable and revenue to the nano, wherever the stretches were cut; the trial balance is zero."""
    story = told(steps)
    transfers = list(book(story, cuts))
    found = balances(transfers)
    owed = total(story, lambda block: (block.price - block.share) if block.kind == "paid" else 0)
    drawn = total(story, lambda block: block.share if block.kind == "overdraft" else 0)
    assert found[Account.CONTRACT_LIABILITY] == -owed
    assert found[Account.ACCOUNTS_RECEIVABLE] == drawn
    assert found[Account.CASH] == story.topped_up
    revenue = found[Account.REVENUE_USAGE] + found[Account.REVENUE_BREAKAGE]
    assert revenue == -(story.topped_up - owed + drawn)
    assert sum(found.values()) == 0
    assert len({transfer.transfer_id for transfer in transfers}) == len(transfers)


@given(STEPS, st.lists(st.integers(min_value=0, max_value=100), max_size=6))
def test_where_a_stretch_is_cut_moves_no_nano(steps: list[tuple[str, int, int | None]], cuts: list[int]) -> None:
    """Between usage and breakage a share may round to either side, by less than a nano for each cut."""
    story = told(steps)
    whole, parts = balances(list(book(story, []))), balances(list(book(story, cuts)))
    for account in (Account.CONTRACT_LIABILITY, Account.ACCOUNTS_RECEIVABLE, Account.CASH):
        assert whole[account] == parts[account]
    assert abs(whole[Account.REVENUE_BREAKAGE] - parts[Account.REVENUE_BREAKAGE]) <= len(story.blocks) * 32


@given(amounts, amounts, st.lists(st.integers(min_value=1, max_value=2**40), max_size=30))
def test_the_shares_of_a_whole_grant_add_up_to_its_price(amount: int, price: int, takes: list[int]) -> None:
    """Each part costs less than a nano more or less than its exact share, and all of them the price."""
    moved = shares = 0
    for take in [*takes, amount]:
        after = min(amount, moved + take)
        part = share_nanos(after, amount_nanos=amount, price_nanos=price) - share_nanos(
            moved, amount_nanos=amount, price_nanos=price
        )
        assert abs(part * amount - price * (after - moved)) < amount
        moved, shares = after, shares + part
    assert shares == price
