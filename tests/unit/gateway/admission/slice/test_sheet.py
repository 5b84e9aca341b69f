"""What was used of slices is found again, whoever died when."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from billing_core.errors import ConfigurationError
from gateway.admission.slice.sheet import Sheet, SliceRecord, left_sheets, new_sheet

RECORD = SliceRecord(
    hold_id="hold_1", decision_id="dec_1", tenant_id="t1", customer_id="acme", path="team:ml", key_hint="er",
    feature="calls",
)  # fmt: skip

DYING = """
import os, signal, sys
from pathlib import Path
from gateway.admission.slice.sheet import new_sheet
from tests.unit.gateway.admission.slice.test_sheet import RECORD
sheet = new_sheet(Path(sys.argv[1]), count=4)
cell = sheet.write(RECORD)
for n in range(1, 31):
    cell.used[cell.place] = n
os.kill(os.getpid(), signal.SIGKILL)
"""


def used_in(sheet: Sheet) -> list[tuple[str, int]]:
    return [(record.hold_id, used) for _, record, used in sheet.cells()]


def test_a_killed_process_leaves_what_was_used(tmp_path: Path) -> None:
    """To the last unit; and it is left once."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", DYING, tmp_path], env=environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    (sheet,) = left_sheets(tmp_path)
    assert [record for _, record, _ in sheet.cells()] == [RECORD]
    assert used_in(sheet) == [("hold_1", 30)]
    assert left_sheets(tmp_path) == []
    sheet.clear(1)
    sheet.close()
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_sheet(tmp_path: Path) -> None:
    """Nobody else finds it; what is left in it at its end is found."""
    ours = new_sheet(tmp_path, count=4)
    cell = ours.write(RECORD)
    assert cell is not None
    assert left_sheets(tmp_path) == []
    ours.close()
    (left,) = left_sheets(tmp_path)
    assert used_in(left) == [("hold_1", 0)]
    left.close()


def test_a_cell_is_used_again_from_nothing(tmp_path: Path) -> None:
    """Once it is cleared; while all are taken there is none."""
    sheet = new_sheet(tmp_path, count=1)
    cell = sheet.write(RECORD)
    assert cell is not None
    cell.used[cell.place] = 7
    assert sheet.write(RECORD) is None
    sheet.clear(cell.number)
    assert used_in(sheet) == []
    again = sheet.write(msgspec.structs.replace(RECORD, hold_id="hold_2"))
    assert again is not None
    assert used_in(sheet) == [("hold_2", 0)]
    sheet.clear(again.number)
    sheet.close()


def test_what_does_not_fit_into_a_cell_has_none(tmp_path: Path) -> None:
    """Names are shorter than that; the cells behind it stay what they are."""
    sheet = new_sheet(tmp_path, count=2)
    assert sheet.write(msgspec.structs.replace(RECORD, path="p" * 1_000)) is None
    assert sheet.write(msgspec.structs.replace(RECORD, path="p" * 800)) is not None
    assert len(used_in(sheet)) == 1
    sheet.close()


@pytest.mark.parametrize("place", [1_024 + 8, 1_024 + 12, 1_024 + 16, 1_024 + 40])
def test_a_torn_cell_tells_nothing(tmp_path: Path, place: int) -> None:
    """What a machine that died has written of it is not believed; the others are."""
    sheet = new_sheet(tmp_path, count=2)
    for name in ("hold_1", "hold_2"):
        assert sheet.write(msgspec.structs.replace(RECORD, hold_id=name)) is not None
    sheet.close()
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(content)
    (left,) = left_sheets(tmp_path)
    assert used_in(left) == [("hold_2", 0)]
    left.close()


def test_what_was_not_even_begun_is_removed(tmp_path: Path) -> None:
    """A process died before its sheet had its length; one of something else is left alone by whoever reads."""
    (tmp_path / "a.slices").write_bytes(b"")
    (tmp_path / "b.slices").write_bytes(b"x" * 4_099)
    (strange,) = left_sheets(tmp_path)
    assert used_in(strange) == []
    strange.close()
    assert not (tmp_path / "a.slices").exists()


def test_a_disk_that_is_full_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by a signal when a cell is written."""

    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ConfigurationError, match=r"journal_dir.*No space left"):
        new_sheet(tmp_path, count=4)
