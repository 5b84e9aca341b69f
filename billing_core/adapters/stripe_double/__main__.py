"""Run the double: `python -P -m billing_core.adapters.stripe_double --port 8095 [--journal FILE]`.

It listens on the loopback interface only and ends on SIGINT or SIGTERM. With a journal it remembers everything;
with a webhook address it posts what happens; with `--adopt-customers` it takes on customers that it never made,
so that a demonstration can name any.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from pathlib import Path

from aiohttp import web

from billing_core.adapters.stripe_double.server import Double
from billing_core.adapters.stripe_double.state import State
from billing_core.adapters.stripe_double.webhook import Hook, Postman
from billing_core.values.clock import system_now

HOST = "127.0.0.1"


def main() -> None:
    """Read the words of the command line and serve until told to end."""
    parser = argparse.ArgumentParser(prog="stripe_double", description="A double of Stripe; no money moves.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, default=None)
    parser.add_argument("--webhook-url", default="")
    parser.add_argument("--webhook-secret", default=os.environ.get("TALLYGATE_BILLING_STRIPE_WEBHOOK_SECRET", ""))
    parser.add_argument("--adopt-customers", action="store_true")
    asyncio.run(serve(parser.parse_args()))


async def serve(words: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM."""
    over = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, over.set)
    state = State(words.journal)
    postman = Postman(Hook(url=words.webhook_url, secret=words.webhook_secret), state)
    double = Double(state, postman, clock=system_now, adopts=words.adopt_customers)
    runner = web.AppRunner(double.application(), access_log=None)
    await postman.begin()
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, words.port).start()
        await over.wait()
    finally:
        await runner.cleanup()
        await postman.end()
        state.close()


if __name__ == "__main__":
    main()
