"""Laws that hold at run time, in every build.

Python's `assert` vanishes under -O and says nothing; `invariant` stays and names the law.
"""

from __future__ import annotations

from billing_core.errors import InvariantBroken


def invariant(holds: bool, law: str) -> None:  # noqa: FBT001 - the condition is the point of the call
    """Raise InvariantBroken with the law's sentence unless it holds."""
    if not holds:
        raise InvariantBroken(law)
