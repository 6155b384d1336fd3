"""7. Ethereum reorg at depth 1 to 3: confirmation withdrawn, same bytes again, one anchor."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.anchor.delivery import Outcome
from provenance.ports.values import AnchorState
from tests.faults.support.anchoring import deployment, ethereum_section
from tests.faults.support.chains import count, on_ethereum
from tests.faults.support.harness import rounds, scenario, seeded
from tests.support.nodes.ethereum_chain import Anvil

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]


def test_reorg(tmp_path: Path, chain: Anvil) -> None:
    chain.automine(False)
    chain.mine(4)
    since = int(chain.call("eth_blockNumber"), 16) + 1
    section = ethereum_section(chain.url, confirmations=5)
    title = "Ethereum reorg at depth 1 to 3 after the receipt"
    with scenario(7, title) as tally, deployment(tmp_path, ethereum=section) as world:
        rng = seeded()
        for depth in (1, 2, 3, *(rng.randint(1, 3) for _ in range(rounds(0, 50)))):
            world.head()
            world.publish("ethereum")
            before = world.versions("ethereum")
            chain.mine(depth)
            world.confirm("ethereum")
            assert world.row("ethereum").state is AnchorState.CONFIRMED
            assert world.receipts("ethereum")
            (was,) = {receipt.anchor.block_hash for receipt in world.receipts("ethereum")}

            for _ in range(rng.choice([1, 1, 2])):  # and again, before the next look
                chain.call("anvil_reorg", depth, [])
                tally.kills += 1
            chain.call("anvil_dropAllTransactions")
            assert before[0].version.transaction_id not in pool(chain)
            done = world.confirm("ethereum")
            assert list(done.outcomes.values()) == [Outcome.REORGED]
            assert world.receipts("ethereum") == [], "receipts of a block that is gone"
            assert pool(chain) == {before[0].version.transaction_id}, "the same bytes again"
            assert world.row("ethereum").state is AnchorState.SENT

            chain.mine(6)
            world.confirm("ethereum")
            after = world.versions("ethereum")
            assert [v.version.raw for v in after] == [v.version.raw for v in before]
            assert world.row("ethereum").state is AnchorState.FINAL
            (now,) = {receipt.anchor.block_hash for receipt in world.receipts("ethereum")}
            assert now != was
        count(tally, world, "ethereum", on_ethereum(chain, since))
        world.fsck(tally)


def pool(chain: Anvil) -> set[str]:
    """Ids of the transactions in the pool."""
    told = chain.call("txpool_content")
    senders = [*told["pending"].values(), *told["queued"].values()]
    return {each["hash"] for nonces in senders for each in nonces.values()}
