"""What the settings of a cluster risk is told in words."""

from __future__ import annotations

from typing import Any

import pytest

from billing_core.adapters.redis_advice import advice


async def test_sound_settings_risk_nothing(valkey: Any) -> None:
    """Those of the tests."""
    assert await advice(valkey) == []


@pytest.mark.parametrize(
    ("name", "risky", "sound", "word"),
    [
        ("cluster-require-full-coverage", "yes", "no", "one lost primary stops all shards"),
        ("cluster-node-timeout", "15000", "1000", "above 5000 ms"),
        ("maxmemory-policy", "allkeys-lru", "noeviction", "throw wallets away"),
    ],
)
async def test_a_risk_is_told_once(cluster: Any, valkey: Any, name: str, risky: str, sound: str, word: str) -> None:
    """However many nodes run it."""
    for value, is_risky in ((risky, True), (sound, False)):
        for node in cluster.nodes:
            await node.client.config_set(name, value)
        told = await advice(valkey)
        assert [word in one for one in told] == [True] * is_risky
