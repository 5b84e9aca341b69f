"""What the gateway answers about a customer's account, live from Redis: usage in its windows, and wallets.

The control plane tells what has been written down; the gateway what holds at this moment, with what is held and not
yet flushed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class LiveFeature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature now, in the window that is open."""

    feature: str
    kind: str = ""
    enabled: bool = True
    value: str | None = None
    limit_units: int | None = None
    limit_mode: str | None = None
    used_units: int = 0
    held_units: int = 0
    remaining_units: int | None = None
    reset_at: datetime | None = None


class LiveUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer may use and has used."""

    status: str = ""
    features: tuple[LiveFeature, ...] = ()


class LiveGrant(msgspec.Struct, frozen=True, kw_only=True):
    """One credit block as it stands."""

    id: str
    usable: bool = True
    remaining_nanos: int = 0
    held_nanos: int = 0
    expires_at: datetime | None = None
    priority: int = 0
    paid: bool = False


class LiveWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A balance as it stands: what is neither held nor spent."""

    currency: str
    balance_nanos: int = 0
    held_nanos: int = 0
    grants: tuple[LiveGrant, ...] = ()


class LiveWallets(msgspec.Struct, frozen=True, kw_only=True):
    """All wallets of a customer."""

    wallets: tuple[LiveWallet, ...] = ()
