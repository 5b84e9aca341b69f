"""`python -m billing_core.describe [FILE]`: print what the billing side was told, as JSON.

The document maps environment variables to texts. A supervisor that may not look inside the billing side learns here
what it was told, and hands the same to each of its processes. A fault is one line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from billing_core.contract.configuration import environment_of, load
from billing_core.errors import ConfigurationError
from billing_core.settings import BillingSettings


def main() -> None:
    """Entry point."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        settings = load("billing", BillingSettings, file=file, environ=os.environ)
    except ConfigurationError as error:
        sys.exit(error.detail)
    sys.stdout.buffer.write(msgspec.json.encode(environment_of("billing", settings)))


if __name__ == "__main__":
    main()
