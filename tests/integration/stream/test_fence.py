"""What a rebuild leaves behind of the shard before it: no hold, and no entry that is not written."""

from __future__ import annotations

import pytest

from billing_core.contract.keys import customer_keys, epoch_key, hold_key, shard_holds_key, shard_of_customer
from billing_core.flows import rebuild
from billing_core.flows.reconcile import reconcile
from tests.integration.stream.conftest import NANOS_PER_TOKEN, Works


async def test_a_hold_of_before_the_rebuild_is_nowhere(works: Works) -> None:
    """It was released: whoever settles it finds nothing, and gives nothing back a second time."""
    (grant,) = await works.customer("c", nanos=[10**9])
    hold = await works.hold("c", 4)
    shard, names = shard_of_customer("t", "c"), customer_keys("t", "c")
    await works.valkey.delete(epoch_key(shard))
    assert (await works.build()).rebuilt_shards == 1
    left = (shard_holds_key(shard), hold_key(hold, shard), names.holds)
    assert await works.valkey.exists(*left) == 0
    assert (await works.settle("c", hold, 3))[0] == b"not_found"
    wallet = await works.wallet("c")
    assert (wallet[f"r:{grant}"], wallet[f"h:{grant}"]) == (10**9, 0)
    assert (await reconcile(works.db, works.stream)).difference_nanos == 0


async def test_a_shard_is_not_served_before_its_stream_is_written(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what was decided in between would be there twice: as balance, and as an entry still to come."""
    monkeypatch.setattr(rebuild, "_DRAIN_WAIT_S", 0.2)
    (grant,) = await works.customer("c", nanos=[10**9])
    await works.consume("c", 3)
    await works.valkey.delete(epoch_key(shard_of_customer("t", "c")))
    built = await works.build()
    assert (built.rebuilt_shards, built.waiting_shards) == (0, 1)
    await works.flush()
    assert (await works.build()).rebuilt_shards == 1
    assert (await works.wallet("c"))[f"r:{grant}"] == 10**9 - 3 * NANOS_PER_TOKEN
