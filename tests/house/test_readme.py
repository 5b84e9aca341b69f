"""What the README says is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text("utf-8")


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    """A walk along files that moved is no walk."""
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 30
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_and_bench_of_the_readme_exists() -> None:
    """Whoever copies a command gets what it promises."""
    told = subprocess.run(["bash", ".ci/steps"], cwd=ROOT, capture_output=True, text=True, check=False).stderr
    targets = set(re.findall(r"(?m)^make (\w+)|`make (\w+)`", TEXT))
    names = {name for pair in targets for name in pair if name}
    assert names >= {"up", "test", "bench"}
    assert [name for name in names if name not in told] == []
    benches = re.findall(r"python -m bench\.(\w+)", TEXT)
    assert {"check", "flush", "close"} <= set(benches)
    places = {name: (ROOT / "bench" / f"{name}.py", ROOT / "bench" / name / "__main__.py") for name in benches}
    assert [name for name, files in places.items() if not any(file.is_file() for file in files)] == []
