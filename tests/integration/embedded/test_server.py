"""The embedded servers keep what they acknowledged, through crashes and on every footing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest
import redis

from billing_core.errors import ConfigurationError, Unavailable
from gateway.command.embedded import footing
from gateway.command.embedded.address import socket_folder
from gateway.command.embedded.postgres import packaged_programs, start_postgres
from gateway.command.embedded.valkey import start_valkey

BOTH = """
import pathlib, signal, sys
from gateway.command.embedded.postgres import start_postgres
from gateway.command.embedded.valkey import start_valkey
folder = pathlib.Path(sys.argv[1])
valkey, postgres = start_valkey(folder), start_postgres(folder, options=("fsync=off",))
print(valkey.url, postgres.url(), flush=True)
if sys.argv[2:] == ["hold"]:
    signal.pause()
postgres.stop()
valkey.stop()
"""


@pytest.fixture
def open_folder():
    """A folder that other users may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="tallygate-test-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


async def version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval("SHOW server_version_num")
    finally:
        await connection.close()


def test_valkey_has_every_acknowledged_write_after_a_crash(tmp_path, started):
    """`appendfsync always` is the default: what was answered is on disk."""
    server = started(start_valkey(tmp_path))
    with redis.Redis.from_url(server.url) as client:
        assert [client.incr("writes") for _ in range(100)][-1] == 100
    server.kill()
    server.begin_again()
    server.wait_ready()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("writes") == b"100"


async def test_postgres_has_every_commit_after_a_crash(tmp_path, started):
    """The same folder and the same address, with the status file of the dead server still lying there."""
    server = started(start_postgres(tmp_path))
    connection = await asyncpg.connect(server.url())
    await connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    connection.terminate()
    server.kill()
    assert (tmp_path / "postgres" / "data" / "postmaster.pid").exists()
    server.begin_again()
    server.wait_ready()
    connection = await asyncpg.connect(server.url())
    assert await connection.fetchval("SELECT number FROM kept") == 1
    await connection.close()


def test_a_cluster_that_was_half_made_is_made_anew(tmp_path, started):
    """A start that was killed in `initdb` leaves nothing in the way."""
    half = tmp_path / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    started(start_postgres(tmp_path, options=("fsync=off",)))


def test_a_setting_that_postgres_refuses_is_quoted(tmp_path):
    """Its own FATAL line, and where the log is."""
    with pytest.raises(Unavailable, match=r"postgres ended .*shared_buffers.*log:"):
        start_postgres(tmp_path, options=("shared_buffers=nonsense",))


def test_missing_binaries_are_one_line(tmp_path):
    """Each names the program that could not be run."""
    with pytest.raises(ConfigurationError, match="valkey cannot be started"):
        start_valkey(tmp_path, binary="/nowhere/valkey-server")
    with pytest.raises(ConfigurationError, match="Postgres cannot run here"):
        start_postgres(tmp_path, programs="/nowhere/bin")


def test_servers_of_a_killed_parent_give_the_folder_to_the_next(tmp_path):
    """A start that follows the kill at once waits for the old servers and then finds their data."""
    held = subprocess.Popen([sys.executable, "-c", BOTH, tmp_path, "hold"], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    address = held.stdout.readline()
    held.kill()
    again = subprocess.run([sys.executable, "-c", BOTH, tmp_path], check=True, stdout=subprocess.PIPE, text=True)
    assert again.stdout == address
    held.wait()
    held.stdout.close()


def test_an_ordinary_user_starts_both(tmp_path):
    """Where the tests run as root, a user namespace makes an ordinary user of it."""
    humble = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--") if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*humble, sys.executable, "-c", BOTH, tmp_path], check=True, stdout=subprocess.PIPE, text=True
    )
    assert "postgresql://" in done.stdout


async def test_root_becomes_nobody_where_namespaces_are_forbidden(open_folder, started, monkeypatch):
    """The last footing: files are given away, programs copied where they cannot be reached."""
    monkeypatch.setattr(footing, "_NAMESPACE", ("/bin/false",))
    server = started(start_postgres(open_folder, options=("fsync=off",)))
    assert await version(server.url()) >= "180000"
    owner = (open_folder / "postgres" / "data").stat().st_uid
    assert owner == (footing.NOBODY if os.geteuid() == 0 else os.geteuid())


async def test_copied_programs_find_their_libraries(tmp_path, started):
    """Libraries are found by a relative path, so a copy keeps the depth of the folders."""
    footing._copy_programs(packaged_programs(), tmp_path / "programs")
    copied = str(tmp_path / "programs" / "bin")
    server = started(start_postgres(tmp_path, programs=copied, options=("fsync=off",)))
    assert await version(server.url()) >= "180000"


def test_sockets_of_a_deep_folder_lie_elsewhere(tmp_path):
    """A socket's path has 107 bytes; the same folder gets the same place each time."""
    deep = tmp_path.joinpath(*["deep"] * 20)
    folder = socket_folder(deep)
    assert folder == socket_folder(deep)
    assert folder != socket_folder(tmp_path)
    assert len(os.fsencode(folder)) < 80
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
