"""The spool's files: order, marks, torn and changed lines, legacies, forks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from billing_core.errors import ConfigurationError, TooLarge
from gateway.sdk import ask
from gateway.sdk.spool import Parcel, Spool


def drained(spool: Spool, *, most: int = 500) -> list[bytes]:
    """All bodies in their order, each parcel marked as sent."""
    found: list[bytes] = []
    while (parcel := spool.next(most=most)) is not None:
        found += parcel.bodies
        spool.sent(parcel, len(parcel.bodies))
    return found


def abandon(spool: Spool) -> None:
    """What a kill leaves: files as they are, and their locks gone."""
    for file in spool._files:
        os.close(file.handle)
    spool._files = []


def bodies(count: int) -> list[bytes]:
    return [b'{"id":"%d"}' % number for number in range(count)]


def test_lines_leave_in_their_order_and_an_act_leaves_alone(tmp_path: Path) -> None:
    """Events together, up to so many."""
    spool = Spool(tmp_path)
    for body in bodies(3):
        spool.put_event(body)
    act = ask.release("hold_1")
    spool.put_act(act)
    spool.put_event(b"{}")
    sizes: list[tuple[str, int]] = []
    while (parcel := spool.next(most=2)) is not None:
        sizes.append((parcel.path, len(parcel.bodies)))
        spool.sent(parcel, len(parcel.bodies))
    assert sizes == [("/v1/events", 2), ("/v1/events", 1), (act.path, 1), ("/v1/events", 1)]
    spool.close()


def test_what_was_not_marked_is_sent_again_by_the_next(tmp_path: Path) -> None:
    """From where the mark stands."""
    spool = Spool(tmp_path)
    for body in bodies(5):
        spool.put_event(body)
    parcel = spool.next()
    assert parcel is not None
    spool.sent(parcel, 2)
    abandon(spool)
    again = Spool(tmp_path)
    assert drained(again) == bodies(5)[2:]
    again.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_line_was_promised_to_nobody(tmp_path: Path, cut: int) -> None:
    """At whatever byte."""
    spool = Spool(tmp_path)
    for body in bodies(2):
        spool.put_event(body)
    path, size = spool._files[0].path, spool._files[0].size
    abandon(spool)
    os.truncate(path, size - cut)
    again = Spool(tmp_path)
    assert drained(again) == bodies(2)[:1]
    assert again.next() is None
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_the_disk_changed_is_set_aside_and_the_others_go(tmp_path: Path) -> None:
    """The checksum tells."""
    spool = Spool(tmp_path)
    for body in bodies(3):
        spool.put_event(body)
    path = spool._files[0].path
    abandon(spool)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"1"', b'"7"'))
    again = Spool(tmp_path)
    assert drained(again) == [bodies(3)[0], bodies(3)[2]]
    assert again.rejected_count == 1
    (line,) = (tmp_path / "rejected.jsonl").read_bytes().splitlines()
    assert msgspec.json.decode(line)["why"] == "the disk changed it"
    again.close()


def test_a_file_is_whoevers_holds_it(tmp_path: Path) -> None:
    """Two in one folder share nothing while both live."""
    one, two = Spool(tmp_path), Spool(tmp_path)
    one.put_event(b'{"id":"one"}')
    two.put_event(b'{"id":"two"}')
    assert drained(two) == [b'{"id":"two"}']
    two.close()
    three = Spool(tmp_path)
    assert three.next() is None
    one.close()
    four = Spool(tmp_path)
    assert drained(four) == [b'{"id":"one"}']
    three.close()
    four.close()


def test_a_spool_that_is_full_says_so_and_files_that_are_sent_go(tmp_path: Path) -> None:
    """Long ones are ended and begun anew."""
    spool = Spool(tmp_path, max_bytes=12_000_000)
    body = b'{"id":"%b"}' % (b"x" * 999_000)
    for _ in range(12):
        spool.put_event(body)
    with pytest.raises(TooLarge):
        spool.put_event(body)
    assert len(list(tmp_path.glob("*.spool"))) == 3
    assert drained(spool) == [body] * 12
    assert len(list(tmp_path.glob("*.spool"))) == 1
    spool.put_event(b"{}")
    assert drained(spool) == [b"{}"]
    spool.close()


def test_a_forked_child_writes_a_file_of_its_own(tmp_path: Path) -> None:
    """And its parent's lines stay its parent's."""
    spool = Spool(tmp_path)
    spool.put_event(b'{"id":"parent"}')
    child = os.fork()
    if child == 0:
        try:
            spool.put_event(b'{"id":"child"}')
            parcel = spool.next()
            os._exit(0 if parcel == Parcel(path="/v1/events", bodies=[b'{"id":"child"}'], sizes=[26]) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    other = Spool(tmp_path)
    assert drained(other) == [b'{"id":"child"}']
    assert drained(spool) == [b'{"id":"parent"}']
    other.close()
    spool.close()


def test_a_folder_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    """At the start."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Spool(tmp_path / "file")


def test_an_act_keeps_what_is_asked_if_it_is_refused(tmp_path: Path) -> None:
    """Past the process that kept it."""
    spool = Spool(tmp_path)
    act = ask.check({"key": "k", "feature": "f"})
    spool.put_act(act, otherwise=b'{"mode":"record"}')
    spool.put_act(act)
    abandon(spool)
    parcels: list[Parcel] = []
    later = Spool(tmp_path)
    while (parcel := later.next()) is not None:
        parcels.append(parcel)
        later.sent(parcel, 1)
    assert [(one.bodies, one.otherwise) for one in parcels] == [
        ([act.body], b'{"mode":"record"}'),
        ([act.body], b""),
    ]
    later.close()


def test_with_fsync_a_line_is_on_the_disk_before_it_is_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file's name too; without it nothing waits for the disk."""
    synced: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "fdatasync", lambda handle: synced.append(("line", os.fstat(handle).st_size)))
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(("name", handle)))
    plain = Spool(tmp_path / "plain")
    plain.put_event(b"{}")
    assert synced == []
    spool = Spool(tmp_path / "safe", fsync=True)
    assert [kind for kind, _ in synced] == ["name", "name"]
    before = spool._files[-1].size
    spool.put_event(b"{}")
    assert synced[2:] == [("line", spool._files[-1].size)]
    assert spool._files[-1].size > before
    for one in (plain, spool):
        one.close()
