"""A memory that is bounded in number and time, and that an overtaking message does not fool."""

from __future__ import annotations

from gateway.state.cache import Cache


def filled(capacity: int = 3) -> Cache[str, int]:
    cache: Cache[str, int] = Cache(capacity)
    for number, key in enumerate("abc"):
        cache.keep(key, number, until_s=10.0, generation=cache.generation)
    return cache


def test_the_least_recently_used_goes_first() -> None:
    """Reading counts as use."""
    cache = filled()
    assert cache.get("a", now_s=0.0) == 0
    cache.keep("d", 3, until_s=10.0, generation=cache.generation)
    assert [cache.get(key, now_s=0.0) for key in "abcd"] == [0, None, 2, 3]
    assert len(cache) == 3


def test_an_entry_ends_with_its_time() -> None:
    """The end is exclusive."""
    cache = filled()
    assert cache.get("a", now_s=9.999) == 0
    assert cache.get("a", now_s=10.0) is None


def test_what_was_read_before_a_message_and_comes_after_it_is_not_kept() -> None:
    """Or a revoked key would live on."""
    cache = filled()
    generation = cache.generation
    cache.forget("x")
    cache.keep("x", 9, until_s=10.0, generation=generation)
    assert cache.get("x", now_s=0.0) is None


def test_clearing_forgets_everything_and_what_is_on_its_way() -> None:
    """The whole memory, and the readers too."""
    cache = filled()
    generation = cache.generation
    cache.clear()
    cache.keep("x", 9, until_s=10.0, generation=generation)
    assert len(cache) == 0


def test_hits_and_misses_are_counted() -> None:
    """For telemetry."""
    cache = filled()
    cache.get("a", now_s=0.0)
    cache.get("x", now_s=0.0)
    assert (cache.hits, cache.misses) == (1, 1)
