"""What a gateway process remembers of Redis: credentials, customers and meters.

    credential  digest -> KeyRecord          forgotten by push (payload: the digest), by time, or all at once (`*`)
    customer    (tenant, customer) -> clock  known ones on real time, by time; a clock that was moved may move
                                             again, so such a tenant's customers are asked for every time
    meters      tenant -> event names        forgotten by push (payload: `meters:<tenant>`), or by time

Unknown credentials are remembered too, apart from the known ones and for a shorter time, so that a flood of
made-up keys costs one look-up each and evicts nobody. Where a gateway may allow without Redis, known credentials
are remembered a second time, for as long as a lease lives and even when deaf: for that alone. Push comes over
pub/sub; while that connection is away the directory is deaf: it starts empty and keeps entries for `deaf_ttl_ms`
only, so that a revoked key never lives longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from billing_core.contract.keys import (
    CustomerKeys,
    KeyRecord,
    api_key_name,
    customer_keys,
    digest_of,
)
from billing_core.errors import InvariantBroken
from gateway.settings import GatewaySettings
from gateway.state.cache import Cache
from gateway.state.fault import failure_of
from gateway.state.link import Link
from gateway.state.resp import ErrorReply, Reply, Word

METERS_PREFIX = "meters:"
EVERYTHING = "*"

Meters = Mapping[str, Mapping[str, int]]
"""Event name -> metered field -> digits allowed after the point; a scale of -1 takes text as well as numbers."""

_RECORD = msgspec.msgpack.Decoder(KeyRecord)
_METERS = msgspec.msgpack.Decoder(dict[str, dict[str, int]])


class Credential(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A known credential; `keys` names its customer's state (None for an operator). Each look-up makes its own."""

    record: KeyRecord
    keys: CustomerKeys | None


class CustomerNote(msgspec.Struct, frozen=True, kw_only=True):
    """A customer that exists, and how far its tenant's clock is ahead."""

    clock_offset_ms: int


def meters_key(tenant_id: str) -> str:
    """Where the projection keeps a tenant's Meters (msgpack)."""
    return f"tg:meters:{tenant_id}"


class Directory:
    """Looks things up in Redis once and remembers them."""

    def __init__(self, link: Link, settings: GatewaySettings) -> None:
        self._link = link
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._deaf = True
        self.credentials: Cache[str, Credential] = Cache(settings.credential_cache_count)
        self.lasting: Cache[str, Credential] = Cache(settings.credential_cache_count)
        self.strangers: Cache[str, bool] = Cache(settings.credential_cache_count)
        self.customers: Cache[tuple[str, str], CustomerNote] = Cache(settings.customer_cache_count)
        self.meters: Cache[str, Meters] = Cache(settings.customer_cache_count)

    def at_hand(self, secret: str) -> Credential | None:
        """What stands behind a credential, where it is remembered; None may mean anything."""
        return self.behind(digest_of(secret)) if secret.isascii() else None

    def behind(self, digest: str) -> Credential | None:
        """The same, by the digest of the credential."""
        return self.credentials.at_hand(digest, now_s=self._loop.time())

    async def credential(self, secret: str, *, deadline_ms: int = 0) -> Credential | None:
        """What stands behind a credential; None for one that nobody knows. 0: the deadline of the settings.

        Raises: Unavailable where it is not remembered and Redis does not answer in time.
        """
        if not secret.isascii():
            return None  # made credentials are ASCII, and a header may carry bytes that are no text at all
        digest, now_s = digest_of(secret), self._loop.time()
        known = self.credentials.get(digest, now_s=now_s)
        if known is not None:
            return known
        if self.strangers.get(digest, now_s=now_s):
            return None
        generation, strange_generation = self.credentials.generation, self.strangers.generation
        lasting_generation = self.lasting.generation
        deadline_ms = deadline_ms or self._settings.decision_deadline_ms
        raw = await self._get(("GET", api_key_name(digest)), deadline_ms=deadline_ms)
        if not isinstance(raw, bytes):
            self.lasting.forget(digest)
            until_s = self._until(self._settings.unknown_credential_ttl_ms)
            self.strangers.keep(digest, value=True, until_s=until_s, generation=strange_generation)
            return None
        known = _credential_of(raw)
        until_s = self._until(self._settings.credential_ttl_ms)
        self.credentials.keep(digest, known, until_s=until_s, generation=generation)
        if self._settings.journal_dir:
            until_s = self._loop.time() + self._settings.lease_ttl_ms / 1_000
            self.lasting.keep(digest, known, until_s=until_s, generation=lasting_generation)
        return known

    def remembered(self, secret: str) -> Credential | None:
        """What stood behind a credential when Redis said so last; only for allowing while Redis is away."""
        return self.lasting.get(digest_of(secret), now_s=self._loop.time()) if secret.isascii() else None

    async def customer(self, tenant_id: str, customer_id: str, *, fresh: bool = False) -> CustomerNote | None:
        """Whether a customer exists, and its clock; `fresh` asks Redis even where it is remembered.

        Raises: Unavailable where Redis must be asked and does not answer in time.
        """
        owner = (tenant_id, customer_id)
        known = None if fresh else self.customers.get(owner, now_s=self._loop.time())
        if known is not None:
            return known
        generation = self.customers.generation
        raw = await self._get(
            ("HGET", customer_keys(tenant_id, customer_id).snapshot, "off"),
            deadline_ms=self._settings.bulk_deadline_ms,
        )
        if not isinstance(raw, bytes):
            return None
        known = CustomerNote(clock_offset_ms=int(raw))
        if known.clock_offset_ms:
            self.customers.forget(owner)
        else:
            until_s = self._until(self._settings.customer_ttl_ms)
            self.customers.keep(owner, known, until_s=until_s, generation=generation)
        return known

    def customer_at_hand(self, tenant_id: str, customer_id: str) -> CustomerNote | None:
        """What is remembered of a customer; None may mean anything."""
        return self.customers.at_hand((tenant_id, customer_id), now_s=self._loop.time())

    async def tenant_meters(self, tenant_id: str) -> Meters:
        """The events that some meter of the tenant reads; empty where it has none.

        Raises: Unavailable where Redis must be asked and does not answer in time.
        """
        known = self.meters.get(tenant_id, now_s=self._loop.time())
        if known is not None:
            return known
        generation = self.meters.generation
        raw = await self._get(("GET", meters_key(tenant_id)), deadline_ms=self._settings.bulk_deadline_ms)
        known = _meters_of(raw)
        until_s = self._until(self._settings.meter_ttl_ms)
        self.meters.keep(tenant_id, known, until_s=until_s, generation=generation)
        return known

    async def _get(self, words: tuple[Word, ...], *, deadline_ms: int) -> Reply:
        """Raises: Unavailable."""
        try:
            return await self._link.send(words, deadline_ms=deadline_ms)
        except ErrorReply as error:
            raise failure_of(error) from None

    def invalidate(self, payload: str) -> None:
        """Forget what a push message names: a digest, `meters:<tenant>`, or `*` for everything."""
        if payload == EVERYTHING:
            self.clear()
            self.lasting.clear()
        elif payload.startswith(METERS_PREFIX):
            self.meters.forget(payload.removeprefix(METERS_PREFIX))
        else:
            self.credentials.forget(payload)
            self.lasting.forget(payload)
            self.strangers.forget(payload)

    def hear(self, *, push_is_up: bool) -> None:
        """Told when the push connection comes or goes: whatever was missed meanwhile, nothing old is left."""
        self._deaf = not push_is_up
        self.clear()
        if push_is_up:
            self.lasting.clear()

    def clear(self) -> None:
        """Forget everything."""
        for cache in (self.credentials, self.strangers, self.customers, self.meters):
            cache.clear()

    def _until(self, ttl_ms: int) -> float:
        bounded_ms = min(ttl_ms, self._settings.deaf_ttl_ms) if self._deaf else ttl_ms
        return self._loop.time() + bounded_ms / 1_000


def _credential_of(raw: bytes) -> Credential:
    try:
        record = _RECORD.decode(raw)
    except msgspec.MsgspecError as error:
        raise InvariantBroken(f"a credential's record cannot be read: {error}") from error
    keys = customer_keys(record.tenant_id, record.customer_id) if record.customer_id else None
    return Credential(record=record, keys=keys)


def _meters_of(raw: Reply) -> Meters:
    try:
        return _METERS.decode(raw) if isinstance(raw, bytes) else {}
    except msgspec.MsgspecError as error:
        raise InvariantBroken(f"a tenant's meters cannot be read: {error}") from error
