"""`/healthz`, `/readyz`, `/metrics`: what those ask who run us.

healthz   the process answers
readyz    Redis answers and every shard is built; else 503, saying what is missing
metrics   Prometheus text of all workers of this port

Beside them `/.well-known/jwks.json`, the public keys by which a decision receipt is verified.
"""

from __future__ import annotations

import msgspec

from billing_core.contract.keys import SHARD_COUNT, epoch_key
from billing_core.contract.telemetry import EXPOSITION_TYPE, Telemetry
from billing_core.errors import Unavailable
from gateway.edge.message import Answer, Request
from gateway.edge.reply import told
from gateway.edge.scrape.exposition import merge
from gateway.edge.scrape.siblings import pages_of_siblings, up
from gateway.receipt import JWKS_TYPE
from gateway.settings import GatewaySettings
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply

_KEYS_LIVE = ("Cache-Control", "public, max-age=300")
_EPOCHS = tuple(epoch_key(shard) for shard in range(SHARD_COUNT))


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of both health probes."""

    status: str
    worker: int


class ProbeRoute:
    """Tells how this process and its workers are."""

    def __init__(self, bulk: Link, telemetry: Telemetry, *, settings: GatewaySettings, jwks: bytes) -> None:
        self._bulk = bulk
        self._jwks = jwks
        self._telemetry = telemetry
        self._settings = settings

    async def health(self, _: Request) -> Answer:
        """The process answers."""
        return told(State(status="alive", worker=self._settings.worker_index))

    async def ready(self, _: Request) -> Answer:
        """Redis answers, and every shard is built."""
        if not self._bulk.is_up:
            raise Unavailable(f"Redis: {self._bulk.fault}")
        try:
            built = await self._bulk.count(_EPOCHS, deadline_ms=self._settings.bulk_deadline_ms)
        except ErrorReply as error:
            raise failure_of(error) from None
        if built != SHARD_COUNT:
            raise Unavailable(f"{built} of {SHARD_COUNT} shards are built")
        return told(State(status="ready", worker=self._settings.worker_index))

    async def keys(self, _: Request) -> Answer:
        """The public keys of receipts; none where none are signed."""
        return Answer(status=200, body=self._jwks, media_type=JWKS_TYPE, headers=(_KEYS_LIVE,))

    async def metrics(self, _: Request) -> Answer:
        """All workers' metrics."""
        settings = self._settings
        pages = {str(settings.worker_index): up(self._telemetry.exposition().decode())}
        if settings.run_dir:
            pages |= await pages_of_siblings(settings.run_dir, settings.port, without=settings.worker_index)
        return _page(merge(pages))

    async def own_metrics(self, _: Request) -> Answer:
        """This worker's metrics, for its siblings."""
        return _page(up(self._telemetry.exposition().decode()))


def _page(text: str) -> Answer:
    return Answer(status=200, body=text.encode(), media_type=EXPOSITION_TYPE)
