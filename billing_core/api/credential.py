"""Bearer credentials of the control plane.

The root token is compared in constant time. An operator's token is looked up by digest; what was found, and that
nothing was found, is remembered for two seconds in a bounded table, so that a revoked token works for two seconds
more and a flood of made-up ones costs Postgres little and memory nothing.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from datetime import datetime, timedelta

from billing_core.contract.keys import digest_of
from billing_core.errors import Forbidden, Unauthenticated
from billing_core.store.database import Database
from billing_core.store.setup.tenant import tenant_of_token

MEMORY = timedelta(seconds=2)
MEMORY_COUNT = 4096
_SCHEME = "bearer "
_LONGEST = 512


class Credentials:
    """Knows who asks."""

    def __init__(self, database: Database, *, root_token: str) -> None:
        self._database = database
        self._root_digest = digest_of(root_token) if root_token else ""
        self._known: OrderedDict[str, tuple[str | None, datetime]] = OrderedDict()

    async def check_root(self, header: str, *, now: datetime) -> None:
        """Raise Forbidden for an operator, Unauthenticated for anybody else but the holder of the root token."""
        token = bearer_of(header)
        if not self._is_root(token):
            await self._tenant_of(token, now=now)
            raise Forbidden("this needs the root token", field="Authorization")

    async def tenant(self, header: str, *, now: datetime) -> str:
        """The tenant whose operator asks.

        Raises: Unauthenticated without a token that somebody knows; Forbidden for the root, who is of no tenant.
        """
        token = bearer_of(header)
        if self._is_root(token):
            raise Forbidden("the root token belongs to no tenant; use an operator token", field="Authorization")
        return await self._tenant_of(token, now=now)

    async def _tenant_of(self, token: str, *, now: datetime) -> str:
        tenant_id = await self._look_up(digest_of(token), now=now)
        if tenant_id is None:
            raise Unauthenticated("nobody knows this token", field="Authorization")
        return tenant_id

    def _is_root(self, token: str) -> bool:
        return bool(self._root_digest) and hmac.compare_digest(digest_of(token), self._root_digest)

    async def _look_up(self, digest: str, *, now: datetime) -> str | None:
        tenant_id, until = self._known.get(digest, (None, now))
        if now < until:
            return tenant_id
        async with self._database.transaction() as tx:
            tenant_id = await tenant_of_token(tx, digest)
        self._known[digest] = (tenant_id, now + MEMORY)
        self._known.move_to_end(digest)
        while len(self._known) > MEMORY_COUNT:
            self._known.popitem(last=False)
        return tenant_id


def bearer_of(header: str) -> str:
    """The token in an Authorization header. Raises: Unauthenticated where there is none."""
    if not header.lower().startswith(_SCHEME):
        raise Unauthenticated("send Authorization: Bearer and a token", field="Authorization")
    token = header[len(_SCHEME) :].strip()
    if not token or len(token) > _LONGEST or not token.isascii():
        raise Unauthenticated("nobody knows this token", field="Authorization")
    return token
