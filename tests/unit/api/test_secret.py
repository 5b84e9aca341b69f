"""A secret that is shown again and kept nowhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from billing_core.api.idempotency import derived_secret, request_digest
from billing_core.store.setup.tenant import Claim

CLAIM = Claim(tenant_id="t", key="k", route="POST /x", digest="d")
AT = datetime(2026, 3, 1, tzinfo=UTC)


def test_the_same_request_of_the_same_token_has_the_same_secret() -> None:
    """192 bits, in the alphabet of all credentials."""
    secret = derived_secret("tgk", bearer="tgo_1", claim=CLAIM, at=AT)
    assert secret == derived_secret("tgk", bearer="tgo_1", claim=CLAIM, at=AT)
    assert secret.startswith("tgk_")
    assert len(secret) == 36
    assert secret.isascii()


@pytest.mark.parametrize("name", ["tenant_id", "key", "route"])
def test_another_request_has_another_secret(name: str) -> None:
    """Whatever is different."""
    secret = derived_secret("tgk", bearer="tgo_1", claim=CLAIM, at=AT)
    other = msgspec.structs.replace(CLAIM, **{name: "other"})
    assert derived_secret("tgk", bearer="tgo_1", claim=other, at=AT) != secret
    assert derived_secret("tgo", bearer="tgo_1", claim=CLAIM, at=AT)[4:] != secret[4:]
    assert derived_secret("tgk", bearer="tgo_2", claim=CLAIM, at=AT) != secret
    assert derived_secret("tgk", bearer="tgo_1", claim=CLAIM, at=AT + timedelta(microseconds=1)) != secret


def test_a_digest_tells_where_one_part_ends() -> None:
    """Two requests that spell the same when joined are two requests."""
    assert request_digest(b"ab", b"c") != request_digest(b"a", b"bc")
