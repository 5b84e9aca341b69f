"""What a gateway process can be told. Each key is documented in `config/tallygate.toml`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Positive = Annotated[int, msgspec.Meta(gt=0)]
Index = Annotated[int, msgspec.Meta(ge=0)]
EventAge = Annotated[int, msgspec.Meta(gt=0, le=63_072_000_000)]
EventSkew = Annotated[int, msgspec.Meta(gt=0, le=86_400_000)]
"""With their ages, ids stay within what `lua/request/ingest.lua` looks through."""


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `[gateway]`. Units stand in the names."""

    host: str = "127.0.0.1"
    port: Port = 8080
    grpc_port: Port = 0
    proxy_port: Port = 0
    proxy_routes_file: str = ""
    redis_url: str = "redis://127.0.0.1:6379/0"
    decision_deadline_ms: Positive = 15
    bulk_deadline_ms: Positive = 2_000
    max_in_flight: Positive = 8_192
    decisions_in_flight: Positive = 256
    customer_in_flight: Positive = 6
    customer_waiting: Positive = 4_096
    link_stall_ms: Positive = 50
    link_hang_ms: Positive = 1_000
    link_retry_ms: Positive = 250
    credential_cache_count: Positive = 100_000
    credential_ttl_ms: Positive = 60_000
    unknown_credential_ttl_ms: Positive = 5_000
    customer_cache_count: Positive = 100_000
    customer_ttl_ms: Positive = 60_000
    meter_ttl_ms: Positive = 60_000
    deaf_ttl_ms: Positive = 1_000
    max_event_age_ms: EventAge = 2_937_600_000
    max_event_skew_ms: EventSkew = 300_000
    idempotency_window_ms: Positive = 86_400_000
    idempotency_refusal_ms: Positive = 60_000
    nginx_request_id_header: str = "X-Request-Id"
    forward_request_id_header: str = ""
    envoy_request_id_header: str = ""
    max_body_bytes: Positive = 1_048_576
    max_head_bytes: Positive = 32_768
    request_read_ms: Positive = 10_000
    keep_alive_ms: Positive = 75_000
    stop_grace_ms: Positive = 10_000
    run_dir: str = ""
    worker_index: Index = 0
    journal_dir: str = ""
    journal_max_bytes: Positive = 67_108_864
    lease_count: Positive = 1_000
    lease_ttl_ms: Positive = 600_000
    lease_margin_ms: Positive = 60_000
    lease_idle_ms: Positive = 30_000
    slice_count: Index = 1_000
    slice_ms: Positive = 1_000
    slice_ttl_ms: Positive = 600_000
    slice_after_count: Positive = 50
    authorize_shadow: bool = False
    payment_offer_file: str = ""
    legacy_ratelimit_headers: bool = False
    receipt_key_file: str = ""
    otlp_endpoint: str = ""
