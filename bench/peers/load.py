"""Load, and what it saw: a closed loop by wrk, a constant arrival rate by the pacer, bare calls by redis-benchmark,
remote procedure calls by h2load.

All four are C programs that use one thread. Their own processor time is told beside what they measured.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.peers.tools import APPARATUS, Tools
from gateway.state.resp import Word

CONNECTIONS: Final = 32
PIPELINED: Final = 32
_STREAMS_OVER: Final = 4
_CALLS: Final = re.compile(rb"(\d+) done, (\d+) succeeded")
_RATE: Final = re.compile(rb"([\d.]+) requests per second, p50=([\d.]+) msec")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is sent again and again."""

    method: str
    path: str
    body: str = ""
    authorization: str = ""

    def text(self, port: int) -> bytes:
        """The request word for word."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += [f"Authorization: {self.authorization}"] if self.authorization else []
        if self.body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + self.body.encode()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a load program saw. `not_allowed` answers had 400 or more as their status; `lost` never came.

    `load_cpu_us`: what a request cost the load program. `late_p99_us`: how late it was by its own fault.
    """

    requests: int
    per_second: float
    p50_us: float
    p99_us: float
    load_cpu_us: float
    not_allowed: int = 0
    lost: int = 0
    late_p99_us: float = 0.0


class _Closed(msgspec.Struct):
    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    not_allowed: int
    broken: int


class _Open(msgspec.Struct):
    requests: int
    lost: int
    per_second: float
    p50_us: float
    p99_us: float
    late_p99_us: float
    cpu_us: float
    statuses: dict[str, int]


def closed_loop(tools: Tools, request: Request, *, port: int, seconds: int) -> Report:
    """As many requests as are answered: each connection sends again when its answer is there."""
    words = [
        str(tools.programs["wrk"]),
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "-s",
        str(APPARATUS / "wrk.lua"),
    ]
    words += [f"http://127.0.0.1:{port}{request.path}", "--", request.method, request.body, request.authorization]
    out, cpu_s = _run(words, tools)
    seen = msgspec.json.decode(out.strip().rsplit(b"\n", 1)[-1], type=_Closed)
    if not seen.requests:
        raise SystemExit(f"no answer from port {port}")
    return Report(
        requests=seen.requests,
        per_second=seen.requests / seen.seconds,
        p50_us=seen.p50_us,
        p99_us=seen.p99_us,
        load_cpu_us=cpu_s * 1e6 / seen.requests,
        not_allowed=seen.not_allowed,
        lost=seen.broken,
    )


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """So many requests a second for so long."""

    rate: float
    seconds: float
    connections: int = CONNECTIONS


class Stream:
    """A pacer under way. It goes before its peers where that is allowed: a late pacer blames whom it asks."""

    def __init__(self, tools: Tools, request: Request, *, port: int, pace: Pace, folder: Path) -> None:
        file = folder / f"request-{port}-{os.urandom(4).hex()}"
        file.write_bytes(request.text(port))
        words = [str(tools.programs["pacer"]), str(port), str(pace.rate), str(pace.seconds), str(pace.connections)]
        first = ("nice", "-n", "-10") if os.geteuid() == 0 else ()
        self._process = subprocess.Popen(
            [*first, *words, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def report(self) -> Report:
        """Wait for its end. Raises: SystemExit where a connection broke."""
        out, words = self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"the pacer ended: {words.decode().strip()}")
        seen = msgspec.json.decode(out, type=_Open)
        return Report(
            requests=seen.requests,
            per_second=seen.per_second,
            p50_us=seen.p50_us,
            p99_us=seen.p99_us,
            load_cpu_us=seen.cpu_us,
            not_allowed=sum(count for status, count in seen.statuses.items() if not status.startswith("2")),
            lost=seen.lost,
            late_p99_us=seen.late_p99_us,
        )


def rpc_loop(tools: Tools, message: bytes, *, method: str, port: int, seconds: int, folder: Path) -> Report:
    """As many calls of a gRPC method as are answered, all over a few connections, as Envoy has them.

    A call that fails is a 200 for h2load too: what it has done is to be looked for elsewhere.
    """
    body, log = folder / f"message-{port}", folder / f"calls-{port}"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    log.unlink(missing_ok=True)
    words = [str(tools.programs["h2load"]), "-t1", f"-c{_STREAMS_OVER}", f"-m{CONNECTIONS // _STREAMS_OVER}"]
    words += [f"-D{seconds}", "-d", str(body), f"--log-file={log}", "-H", "te: trailers"]
    words += ["-H", "content-type: application/grpc", f"http://127.0.0.1:{port}{method}"]
    out, cpu_s = _run(words, tools)
    found = _CALLS.search(out)
    times = sorted(int(line.rsplit(b"\t", 1)[1]) for line in log.read_bytes().splitlines())
    if found is None or not times:
        raise SystemExit(f"h2load said {out[-300:]!r}")
    done, succeeded = int(found[1]), int(found[2])
    return Report(
        requests=done,
        per_second=done / seconds,
        p50_us=times[len(times) // 2],
        p99_us=times[len(times) * 99 // 100],
        load_cpu_us=cpu_s * 1e6 / done,
        not_allowed=done - succeeded,
    )


def bare_calls(tools: Tools, words: Sequence[Word], *, port: int, count: int, at_once: int) -> Report:
    """One command again and again, without any server in front."""
    command = [str(tools.programs["redis-benchmark"]), "-p", str(port), "-c", str(CONNECTIONS), "-n", str(count)]
    command += ["-P", str(at_once), "-q"]
    told = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    out, cpu_s = _run([*(word.encode() for word in command), *told], tools)
    found = _RATE.findall(out)
    if not found:
        raise SystemExit(f"redis-benchmark said {out[-300:]!r}")
    rate, p50_ms = found[-1]
    return Report(
        requests=count,
        per_second=float(rate),
        p50_us=float(p50_ms) * 1_000,
        p99_us=0.0,
        load_cpu_us=cpu_s * 1e6 / count,
    )


def _run(words: Sequence[str | bytes], tools: Tools) -> tuple[bytes, float]:
    """What a program printed, and its processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, check=False, env=dict(tools.environment))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{words[0]!r} failed: {(done.stderr or done.stdout).decode(errors='replace')[-500:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
