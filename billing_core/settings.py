"""What a billing process can be told. Each key is documented in `config/tallygate.toml`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(gt=0)]


class BillingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `[billing]`. Units stand in the names."""

    postgres_url: str = "postgresql://127.0.0.1:5432/tallygate"
    redis_url: str = "redis://127.0.0.1:6379/0"
    roles: str = "api,relay,cycle,flush"
    host: str = "127.0.0.1"
    port: Port = 8090
    root_token: str = ""
    max_body_bytes: Positive = 1_048_576
    flush_interval_ms: Positive = 50
    flush_batch_entries: Positive = 20_000
    lease_ms: Positive = 5_000
    cycle_interval_ms: Positive = 1_000
    sweep_interval_ms: Positive = 500
    stripe_api_key: str = ""
    stripe_api_base: str = ""
    stripe_webhook_secret: str = ""
    payment_attempts: Positive = 4
    suspend_overdue_days: Annotated[int, msgspec.Meta(ge=-1, le=3650)] = 30
    otlp_endpoint: str = ""
