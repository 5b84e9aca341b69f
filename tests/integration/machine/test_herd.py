"""Posts are filled again when their process dies, and emptied in order."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from gateway.command.embedded.process import Program, start
from gateway.command.machine.herd import Herd, Post

PATIENT = """
import pathlib, signal, sys
def leave(number, frame):
    with pathlib.Path(sys.argv[1]).open("a") as diary:
        diary.write(sys.argv[2] + chr(10))
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("ready", flush=True)
while True:
    signal.pause()
"""


class EnoughError(Exception):
    """The test has seen what it wanted."""


def post(folder: Path, name: str, *, rank: int, words: str = PATIENT) -> Post:
    program = Program(
        name=name,
        argv=(sys.executable, "-c", words, str(folder / "diary"), name),
        log_file=folder / f"{name}.log",
    )
    return Post(name=name, rank=rank, begin=partial(start, program), patience_ms=5_000)


def fill(herd: Herd, one: Post) -> int:
    child = herd.fill(one)
    child.wait_ready(lambda: "ready" in child.program.log_file.read_text(), timeout_ms=10_000)
    return child.pid


def test_a_herd_is_emptied_from_the_highest_rank_down(tmp_path):
    """Whoever is needed by others goes last."""
    herd = Herd(print)
    for name, rank in (("server", 0), ("gateway", 2), ("billing", 1)):
        fill(herd, post(tmp_path, name, rank=rank))
    herd.stop()
    assert (tmp_path / "diary").read_text().split() == ["gateway", "billing", "server"]


def test_a_dead_process_is_replaced_and_its_last_words_are_told(tmp_path):
    """Three deaths in a row: each pause is twice the one before."""
    told: list[str] = []

    def listen(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            raise EnoughError

    herd = Herd(listen, healthy=lambda: False)
    herd.fill(post(tmp_path, "weak", rank=0, words="raise SystemExit('out of luck')"))
    with pytest.raises(EnoughError):
        herd.watch()
    assert [line.split(": ")[0] for line in told] == [
        f"weak died with status 1; again in {pause_ms} ms" for pause_ms in (100, 200, 400)
    ]
    assert "out of luck" in told[0]


def test_only_the_post_that_lost_its_process_is_filled_again(tmp_path):
    """The others do not notice."""
    told: list[str] = []
    herd = Herd(told.append)
    first: list[int] = []

    def begin_once():
        if first:
            raise EnoughError
        child = post(tmp_path, "victim", rank=0).begin()
        first.append(child.pid)
        return child

    steady = fill(herd, post(tmp_path, "steady", rank=0))
    victim = fill(herd, Post(name="victim", rank=0, begin=begin_once))
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(EnoughError):
        herd.watch()
    assert [line.split(";")[0] for line in told] == ["victim died with status -9"]
    os.kill(steady, 0)
    herd.stop()
    assert (tmp_path / "diary").read_text().split() == ["steady"]


def test_a_herd_that_is_killed_leaves_nobody(tmp_path):
    """The second Ctrl-C does not ask."""
    herd = Herd(print)
    pids = [fill(herd, post(tmp_path, name, rank=0)) for name in ("one", "two")]
    herd.kill()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (tmp_path / "diary").exists()


def test_it_is_told_when_all_is_well_again(tmp_path):
    """Not when the process began, but when it answers."""
    told: list[str] = []

    def listen(line: str) -> None:
        told.append(line)
        if line == "everything is ready again":
            raise EnoughError

    answers = iter([False, False, True])
    herd = Herd(listen, healthy=lambda: next(answers))
    os.kill(fill(herd, post(tmp_path, "one", rank=0)), signal.SIGKILL)
    with pytest.raises(EnoughError):
        herd.watch()
    assert next(answers, None) is None
    assert len(told) == 2
    herd.stop()
