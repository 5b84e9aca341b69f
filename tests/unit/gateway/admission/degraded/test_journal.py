"""What stood in the journal before an answer is found again after it, whoever died when."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from billing_core.errors import ConfigurationError, Unavailable
from gateway.admission.degraded.journal import Journal, legacies
from gateway.admission.degraded.record import MAGIC, Done, Ended, Entry, Leased, left_of, packed

MIB = 2**20


def entry(number: int) -> Entry:
    return Entry(
        decision_id=f"dec_{number}",
        hold_id="hold_1",
        answer_key=f"key {number}",
        digest="d",
        body=b"\x00body",
        at_ms=number,
        tenant_id="t1",
        customer_id="acme",
        path="",
        features=("calls",),
        quantities=(number,),
    )


def content_of(*records: object) -> bytes:
    return MAGIC + b"".join(packed(record) for record in records)  # type: ignore[arg-type]


def test_what_is_left_is_what_is_not_done_in_its_order() -> None:
    """And the leases that nobody gave back."""
    left = left_of(
        content_of(
            Leased(hold_id="h1"),
            entry(1),
            Leased(hold_id="h2"),
            entry(2),
            Done(count=1),
            Ended(hold_id="h1"),
            entry(3),
        )
    )
    assert left.entries == (entry(2), entry(3))
    assert (left.done_count, left.hold_ids) == (1, ("h2",))


def test_a_record_that_is_torn_anywhere_is_not_there() -> None:
    """And what stands before it is."""
    whole = content_of(entry(1), entry(2))
    first = len(content_of(entry(1)))
    for cut in range(first, len(whole)):
        left = left_of(whole[:cut])
        assert (left.entries, left.good_bytes) == ((entry(1),), first)
    for at in range(first, len(whole)):
        spoilt = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert left_of(spoilt).entries == (entry(1),)


@pytest.mark.parametrize("content", [b"", b"tally", MAGIC, b"something else entirely", MAGIC + b"\x00" * 100])
def test_a_file_without_a_record_leaves_nothing(content: bytes) -> None:
    """Whatever it is."""
    assert left_of(content).entries == ()


async def test_one_turn_is_one_write_and_the_disk_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told when the kernel has it."""
    journal = Journal(tmp_path / "j", max_bytes=MIB)
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, content: writes.append(file) or write(file, content))
    await asyncio.gather(*(journal.write(entry(number)) for number in range(50)))
    assert (len(writes), journal.entry_count) == (1, 50)
    assert left_of(journal.path.read_bytes()).entries == tuple(entry(number) for number in range(50))
    await journal.close(is_empty=False)
    assert journal.sync_count >= 1


async def test_a_dead_process_leaves_its_file_to_whoever_finds_it_first(tmp_path: Path) -> None:
    """A live one's is left alone; a torn end is cut off before anything is written behind it."""
    alive, dead = (Journal(tmp_path / "j", max_bytes=MIB) for _ in range(2))
    await alive.write(entry(1))
    await dead.write(Leased(hold_id="h1"), entry(2), entry(3))
    assert legacies(tmp_path / "j") == []
    await dead.close(is_empty=False)
    with dead.path.open("ab") as file:
        file.write(b"\x00\x00\x00\x09torn")
    (found,) = legacies(tmp_path / "j")
    assert (found.left.entries, found.left.hold_ids) == ((entry(2), entry(3)), ("h1",))
    assert legacies(tmp_path / "j") == []
    found.done(packed(Done(count=1)))
    found.let_go()
    (again,) = legacies(tmp_path / "j")
    assert again.left.entries == (entry(3),)
    again.remove()
    assert list((tmp_path / "j").iterdir()) == [alive.path]
    await alive.close(is_empty=True)
    assert list((tmp_path / "j").iterdir()) == []


async def test_a_journal_that_is_done_begins_anew_with_its_leases(tmp_path: Path) -> None:
    """So that it does not grow for ever."""
    journal = Journal(tmp_path / "j", max_bytes=MIB)
    await journal.write(entry(1), entry(2))
    await journal.write(Done(count=2))
    journal.begin_anew(["h1", "h2"])
    await journal.write(entry(3))
    left = left_of(journal.path.read_bytes())
    assert (left.entries, left.hold_ids) == ((entry(3),), ("h1", "h2"))
    await journal.close(is_empty=True)


async def test_a_journal_in_which_leases_come_and_go_is_long_at_some_time(tmp_path: Path) -> None:
    """Then it begins anew though nothing was charged."""
    journal = Journal(tmp_path / "j", max_bytes=MIB)
    await journal.write(*(Leased(hold_id=f"hold_{number}") for number in range(20_000)))
    assert journal.is_long
    journal.begin_anew(["hold_1"])
    assert not journal.is_long
    assert left_of(journal.path.read_bytes()).hold_ids == ("hold_1",)
    await journal.close(is_empty=True)


async def test_a_full_disk_refuses_the_whole_turn_and_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record must not stand before a whole one."""
    journal = Journal(tmp_path / "j", max_bytes=MIB)
    await journal.write(entry(1))
    write = os.write

    def short(file: int, content: bytes) -> int:
        return write(file, content[: len(content) // 2])

    def full(file: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for fault in (short, full):
        monkeypatch.setattr(os, "write", fault)
        with pytest.raises(Unavailable, match="journal cannot be written"):
            await journal.write(entry(2))
    monkeypatch.setattr(os, "write", write)
    await journal.write(entry(3))
    assert left_of(journal.path.read_bytes()).entries == (entry(1), entry(3))
    await journal.close(is_empty=True)


async def test_a_journal_has_a_bound(tmp_path: Path) -> None:
    """Above it nothing is allowed on a lease."""
    journal = Journal(tmp_path / "j", max_bytes=1_000)
    await journal.write(*(entry(number) for number in range(20)))
    with pytest.raises(Unavailable, match="full"):
        await journal.write(entry(20))
    await journal.close(is_empty=True)


async def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """In one line that names the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="journal_dir"):
        Journal(tmp_path / "file", max_bytes=MIB)
