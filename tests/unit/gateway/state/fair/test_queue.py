"""Who gets the next place, driven by hand: no server, no loop, and a clock that stands still unless it is moved."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.state.fair.queue import Bounds, FairQueue, Share, Shed, Waiting

SOON_S = 10.0


class Bench:
    """A queue, its clock, and the commands that have left, by name."""

    def __init__(self, bounds: Bounds) -> None:
        self.now_s = 100.0
        self.left: list[str] = []
        self.seats: list[tuple[str, Share]] = []
        self.worked_s = 0.0
        self.queue = FairQueue(bounds, self._start, now_s=lambda: self.now_s, worked_s=lambda: self.worked_s)

    def _start(self, command: Waiting, share: Share) -> None:
        self.left.append(command.packed.decode())
        self.seats.append((command.place, share))

    def ask(self, who: str, name: str = "", *, for_s: float = SOON_S) -> Shed | Waiting | None:
        """One command: sent (None), waiting, or refused."""
        share = self.queue.take(who)
        if share is not None:
            self.left.append(name or who)
            self.seats.append((who, share))
            return None
        command = Waiting(
            (name or who).encode(), place=who, tell=lambda _: None, since_s=self.now_s, until_s=self.now_s + for_s
        )
        return self.queue.wait(command) or command

    def answer(self, who: str) -> None:
        """The server is done with the oldest of these."""
        at = next(at for at, (whose, _) in enumerate(self.seats) if whose == who)
        self.seats.pop(at)[1].leave()

    def turn(self, *, worked_s: float) -> None:
        """Another turn of the loop, after so much work."""
        self.now_s += 0.001
        self.worked_s += worked_s

    def meet(self, *names: str) -> None:
        """Let these be known as customers who ask, so that nobody is alone."""
        for name in names:
            self.ask(name)
            self.answer(name)
        self.left.clear()

    def under_way(self) -> Counter[str]:
        return Counter(who for who, _ in self.seats)


def test_what_is_above_a_customers_bound_waits_and_another_passes_it() -> None:
    """The heart of it: a noisy customer stands in its own way only."""
    bench = Bench(Bounds(places=8, customer_places=2))
    bench.meet("quiet", "noisy")
    for number in range(5):
        bench.ask("noisy", f"n{number}")
    bench.ask("quiet", "q")
    assert bench.left == ["n0", "n1", "q"]
    bench.answer("noisy")
    bench.answer("quiet")
    bench.answer("noisy")
    assert bench.left == ["n0", "n1", "q", "n2", "n3"]
    assert bench.queue.waiting == 1


def test_free_places_go_round_among_customers_who_wait() -> None:
    """However many one of them has waiting; each customer's own commands keep their order."""
    bench = Bench(Bounds(places=1, customer_places=1))
    bench.meet("a", "b", "c")
    bench.ask("a", "a0")
    for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
        bench.ask(name[0], name)
    while bench.seats:
        bench.answer(bench.seats[0][0])
    assert sorted(bench.left[1:4]) == ["a1", "b1", "c1"]
    assert bench.left[4:] in (["a2", "b2", "a3"], ["b2", "a2", "a3"])


def test_who_had_nothing_under_way_goes_first_but_not_twice() -> None:
    """RFC 8290: a new flow is served before the old ones, and is an old one then."""
    bench = Bench(Bounds(places=1, customer_places=1))
    bench.meet("a", "b", "new")
    bench.ask("a", "a0")
    bench.ask("a", "a1")
    bench.ask("b", "b1")
    bench.answer("a")
    bench.ask("new", "new0")
    bench.ask("new", "new1")
    while bench.seats:
        bench.answer(bench.seats[0][0])
    order = bench.left
    assert order.index("new0") < max(order.index("a1"), order.index("b1"))
    assert order.index("new1") > max(order.index("a1"), order.index("b1"))


def test_who_asks_one_at_a_time_does_not_starve_those_who_wait() -> None:
    """A customer whose next command comes when the last was answered is new once, and then one of the round."""
    bench = Bench(Bounds(places=1, customer_places=1))
    bench.meet("old", "x", "y")
    bench.ask("old", "old0")
    bench.ask("old", "old1")
    bench.ask("x")
    bench.ask("y")
    served = Counter[str]()
    for _ in range(12):
        who = bench.seats[0][0]
        bench.answer(who)
        served[who] += 1
        bench.ask(who)
    assert max(served.values()) - min(served.values()) <= 1
    assert set(served) == {"old", "x", "y"}


def test_who_is_alone_has_no_bounds_until_somebody_else_asks() -> None:
    """There is nobody to be unfair to; a minute after the other one's last command there is nobody again."""
    bench = Bench(Bounds(places=2, customer_places=1))
    for _ in range(5):
        bench.ask("one")
    assert bench.under_way() == {"one": 5}
    for _ in range(4):
        bench.answer("one")
    bench.ask("other")
    bench.ask("one")
    bench.answer("one")
    assert bench.under_way() == {"one": 1, "other": 1}
    bench.now_s += 59
    bench.ask("one")
    assert bench.under_way() == {"one": 1, "other": 1}
    bench.now_s += 2
    bench.ask("one")
    assert bench.under_way() == {"one": 3, "other": 1}


def test_where_replies_are_read_late_there_are_more_places() -> None:
    """Worked example: 4 ms of work at 40 us a decision are 100; in the next turn the bounds are what they were."""
    bench = Bench(Bounds(places=200, customer_places=2))
    bench.meet("a", "b")
    for _ in range(300):
        bench.ask("a")
    bench.turn(worked_s=0.001)
    bench.answer("a")
    assert bench.under_way() == {"a": 2}
    bench.turn(worked_s=0.00401)
    bench.answer("a")
    bench.answer("a")
    assert bench.under_way() == {"a": 100}
    bench.turn(worked_s=1.0)
    bench.answer("a")
    assert bench.under_way() == {"a": 200}
    bench.turn(worked_s=0.001)
    for _ in range(199):
        bench.answer("a")
    assert bench.under_way() == {"a": 2}


def test_work_of_a_time_in_which_nobody_waited_gives_no_places() -> None:
    """It has held up no reply that a place was waited for."""
    bench = Bench(Bounds(places=200, customer_places=2))
    bench.meet("a", "b")
    bench.turn(worked_s=5.0)
    for _ in range(20):
        bench.ask("a")
    bench.turn(worked_s=0.001)
    bench.answer("a")
    assert bench.under_way() == {"a": 2}


def test_a_queue_has_a_bound_and_so_have_all_together() -> None:
    """Memory is bounded whoever asks."""
    bench = Bench(Bounds(places=1, customer_places=1, customer_waiting=2, waiting=3))
    bench.meet("a", "b")
    answers = [bench.ask("a") for _ in range(4)]
    assert answers[0] is None
    assert answers[3] is Shed.CUSTOMER_FULL
    assert isinstance(bench.ask("b"), Waiting)
    assert bench.ask("b") is Shed.FULL
    assert bench.queue.waiting == 3


def test_what_would_be_late_is_refused_when_it_comes() -> None:
    """Worked example: each takes 100 ms; the fifth in the queue would wait 500, and may wait 450."""
    bench = Bench(Bounds(places=2, customer_places=1))
    bench.meet("a", "b")
    bench.ask("a")
    bench.ask("a")
    bench.now_s += 0.100
    bench.answer("a")  # the one that waited has taken 100 ms
    assert [type(bench.ask("a", for_s=0.450)) for _ in range(5)] == [Waiting, Waiting, Waiting, Waiting, Shed]
    assert isinstance(bench.ask("a", for_s=0.600), Waiting)
    assert bench.ask("b", for_s=0.001) is None


def test_what_gives_up_soon_by_itself_is_left_to_that() -> None:
    """Who is refused at once asks again at once; so much is waited for in vain, and no more."""
    bench = Bench(Bounds(places=2, customer_places=1))
    bench.meet("a", "b")
    bench.ask("a")
    bench.ask("a")
    bench.now_s += 5
    bench.answer("a")
    assert [type(bench.ask("a", for_s=0.015)) for _ in range(20)] == [Waiting] * 20
    assert bench.ask("a", for_s=0.060) is Shed.SLOW


def test_the_first_in_a_queue_are_never_refused_for_being_late() -> None:
    """Or one bad moment would be believed for ever."""
    bench = Bench(Bounds(places=2, customer_places=1))
    bench.meet("a", "b")
    bench.ask("a")
    bench.ask("a")
    bench.now_s += 5
    bench.answer("a")
    assert isinstance(bench.ask("a", for_s=0.100), Waiting)
    assert bench.ask("a", for_s=0.100) is Shed.SLOW


def test_who_gives_up_is_not_sent() -> None:
    """Its place in the queue is free again, and its deadline is nobody's business any more."""
    bench = Bench(Bounds(places=2, customer_places=1))
    bench.meet("a", "b")
    bench.ask("a", "a0")
    gone, stays = bench.ask("a", "a1"), bench.ask("a", "a2")
    assert isinstance(gone, Waiting)
    assert isinstance(stays, Waiting)
    assert bench.queue.withdraw(gone)
    assert not bench.queue.withdraw(gone)
    bench.answer("a")
    assert bench.left == ["a0", "a2"]
    assert not bench.queue.withdraw(stays)
    assert bench.queue.waiting == 0


def test_what_cannot_be_sent_frees_its_place_for_the_next() -> None:
    """A connection that is lost in the midst of it: everybody is told, nobody is forgotten, no place leaks."""
    told: list[str] = []

    def broken(command: Waiting, share: Share) -> None:
        told.append(command.packed.decode())
        share.leave()

    queue = FairQueue(Bounds(places=1, customer_places=1), broken, now_s=lambda: 0.0, worked_s=lambda: 0.0)
    for name in "ab":
        met = queue.take(name)
        assert met is not None
        met.leave()
    seat = queue.take("a")
    assert seat is not None
    for number in range(1_000):
        name = f"{'ab'[number % 2]}{number}"
        assert queue.take(name[0]) is None
        command = Waiting(name.encode(), place=name[0], tell=lambda _: None, since_s=0.0, until_s=1.0)
        assert queue.wait(command) is None
    seat.leave()
    assert len(told) == len(set(told)) == 1_000
    assert (queue.taken, queue.waiting) == (0, 0)


def test_shares_of_customers_who_have_gone_are_forgotten() -> None:
    """Memory does not grow with all who ever asked; who is under way is not forgotten."""
    bench = Bench(Bounds(places=1_000, customer_places=1))
    bench.meet("a", "b")
    bench.ask("stays")
    for number in range(20_000):
        bench.ask(f"c{number}")
        bench.answer(f"c{number}")
    assert bench.queue.share_count <= 4_096
    assert isinstance(bench.ask("stays"), Waiting)


ACTS = st.lists(
    st.tuples(st.sampled_from(["ask", "ask", "ask", "answer", "give up", "pass"]), st.integers(0, 4)), max_size=120
)


@settings(max_examples=150, deadline=None)
@given(ACTS, st.integers(1, 5), st.integers(1, 5))
def test_bounds_hold_nobody_is_forgotten_and_nobody_waits_for_nothing(
    acts: list[tuple[str, int]], places: int, customer_places: int
) -> None:
    """At every moment, whatever happens; and in the end all have left or were refused or gave up, once."""
    customer_places = min(places, customer_places)
    bench = Bench(Bounds(places=places, customer_places=customer_places, waiting=30, customer_waiting=12))
    bench.meet("0", "1")
    asked, waiting, over = 0, list[Waiting](), 0
    for act, number in acts:
        who = str(number)
        if act == "ask":
            asked += 1
            answer = bench.ask(who, f"{who}:{asked}")
            over += isinstance(answer, Shed)
            waiting += [answer] if isinstance(answer, Waiting) else []
        elif act == "answer" and bench.under_way()[who]:
            bench.answer(who)
        elif act == "give up" and waiting:
            over += bench.queue.withdraw(waiting.pop(number % len(waiting)))
        elif act == "pass":
            bench.now_s += number / 1_000
        under_way = bench.under_way()
        still = Counter(one.place for one in waiting if one.share is not None)
        assert bench.queue.taken == sum(under_way.values()) <= places
        assert max(under_way.values(), default=0) <= customer_places
        assert bench.queue.waiting == sum(still.values())
        is_full = bench.queue.taken == places
        assert all(is_full or under_way[who] == customer_places for who in still)
    while bench.seats:
        bench.answer(bench.seats[0][0])
    assert (bench.queue.taken, bench.queue.waiting) == (0, 0)
    assert len(bench.left) == len(set(bench.left)) == asked - over
    for who in "01234":
        own = [int(name.split(":")[1]) for name in bench.left if name.startswith(who)]
        assert own == sorted(own)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(1, 6))
def test_of_those_who_wait_nobody_gets_two_more_than_another(counts: list[int], places: int) -> None:
    """Max-min fairness: as long as two customers wait, what they got since differs by one round at most."""
    bench = Bench(Bounds(places=places, customer_places=places))
    names = [str(index) for index in range(len(counts))]
    bench.meet(*names)
    bench.ask("first")
    for _ in range(places - 1):
        bench.ask("first")
    for name, count in zip(names, counts, strict=True):
        for _ in range(count):
            bench.ask(name)
    bench.left.clear()
    left = dict(zip(names, counts, strict=True))
    while bench.seats:
        bench.answer(bench.seats[0][0])
        got = Counter(bench.left)
        busy = [got[name] for name in names if got[name] < left[name]]
        assert max(busy, default=0) - min(busy, default=0) <= 1
