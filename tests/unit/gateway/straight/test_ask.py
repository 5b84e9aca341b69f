"""What is known of words, and what strangers cannot do to it."""

from __future__ import annotations

from gateway.admission.order import Charge, Order
from gateway.edge.straight.ask import Ask, Asks


def ask(digest: str = "known") -> Ask:
    return Ask(Order(charges=(Charge(feature="calls", quantity=1),)), digest=digest, is_keyed=False, budget_ms=15)


def never() -> Ask | None:
    raise AssertionError("it was not to be read")


def asks(capacity: int = 2) -> Asks:
    return Asks(lambda digest: digest == "known", capacity=capacity)


def test_words_are_read_when_they_come_again() -> None:
    """And known from then on."""
    known, one = asks(), ask()
    assert known.meet(b"a", never) is None
    assert known.get(b"a") is None
    assert known.meet(b"a", lambda: one) is one
    assert known.get(b"a") is one


def test_words_without_a_plain_meaning_are_read_once() -> None:
    """Whoever sends them again and again costs no more than the long way does."""
    known = asks()
    assert known.meet(b"odd", never) is None
    assert known.meet(b"odd", lambda: None) is None
    assert known.meet(b"odd", never) is None


def test_what_strangers_ask_is_not_kept() -> None:
    """However often they ask it."""
    known = asks()
    for _ in range(3):
        known.meet(b"s", lambda: ask("stranger"))
    assert known.get(b"s") is None


def test_words_that_never_come_again_push_nobody_out() -> None:
    """They are noted apart."""
    known, one = asks(), ask()
    known.meet(b"a", never)
    known.meet(b"a", lambda: one)
    for number in range(100):
        known.meet(number, never)
    assert known.get(b"a") is one


def test_the_oldest_gives_way() -> None:
    """There is room for so many."""
    known = asks(capacity=2)
    for words in (b"a", b"b", b"c"):
        known.meet(words, never)
        known.meet(words, ask)
    assert [known.get(words) is not None for words in (b"a", b"b", b"c")] == [False, True, True]
