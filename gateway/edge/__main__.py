"""`python -P -m gateway.edge`: one gateway worker."""

from __future__ import annotations

import sys

from gateway.edge.server import main

if __name__ == "__main__":
    sys.exit(main())
