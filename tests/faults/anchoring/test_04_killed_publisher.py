"""4. SIGKILL between build, sign, store, broadcast and record: one anchor per head."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provenance.approvals.anchoring import AnchoringApprovals, add, take, waiting
from provenance.bootstrap import sending
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import (
    Deployment,
    Nursery,
    bitcoin_section,
    deployment,
    ethereum_section,
)
from tests.faults.support.chains import Roots, count, on_bitcoin, on_ethereum, on_file, on_ipfs
from tests.faults.support.harness import Tally, rounds, scenario, seeded
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest
from tests.unit.approvals.world import BY, signed

HELD = AnchorState.HELD
pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]


def torture(tally: Tally, world: Deployment, name: str, mine: Callable[[int], object]) -> None:
    """A head for every point, then heads with kills at random points, two or three in a row."""
    rng = seeded()
    with Nursery(world) as nursery:
        for point in Nursery.POINTS:
            world.head()
            done = nursery.run(name, point=point)
            assert done["killed"], (point, done)
            tally.kills += 1
            settle(world, name, mine)
        for _ in range(rounds(0, 18)):
            world.head()
            for _ in range(rng.randint(1, 3)):
                do = rng.choice([["publish"], ["publish", "confirm"]])
                tally.kills += nursery.run(name, nth=rng.randint(1, 6), do=do)["killed"]
                if rng.random() < 0.3:
                    mine(1)
            settle(world, name, mine)
        world.head()
        assert set(nursery.run(name)["points"]) == set(Nursery.POINTS)
        settle(world, name, mine)


def settle(world: Deployment, name: str, mine: Callable[[int], object]) -> None:
    """What the sweep does afterwards, until the newest head is final."""
    for _ in range(8):
        world.publish(name)
        mine(3)
        world.confirm(name)
        if world.row(name).state is AnchorState.FINAL:
            return
    raise AssertionError(f"never final: {world.row(name)}; paused: {world.paused(name)}")


def test_local(tmp_path: Path) -> None:
    title = "SIGKILL at every step of publishing"
    with scenario(4, title) as tally, deployment(tmp_path, local={}) as world:
        torture(tally, world, "local", lambda blocks: None)
        assert world.settings.blockchain.local is not None
        count(tally, world, "local", on_file(world.settings.blockchain.local.path))
        world.fsck(tally)


def test_ethereum(tmp_path: Path, chain: Anvil) -> None:
    chain.automine(False)
    since = int(chain.call("eth_blockNumber"), 16) + 1
    section = ethereum_section(chain.url)
    title = "SIGKILL at every step of publishing"
    with scenario(4, title) as tally, deployment(tmp_path, ethereum=section) as world:
        torture(tally, world, "ethereum", chain.mine)
        found = on_ethereum(chain, since)
        count(tally, world, "ethereum", found)
        assert chain.call("txpool_status")["pending"] == "0x0"
        world.fsck(tally)


def test_approved(tmp_path: Path, chain: Anvil) -> None:
    """Killed at every step behind the last signature that a final root waits for."""
    chain.automine(False)
    since = int(chain.call("eth_blockNumber"), 16) + 1
    rule = {"at_least": 2, "by": BY, "networks": ["ethereum"]}
    section = ethereum_section(chain.url)
    title = "SIGKILL between the last approval and every step of publishing"
    with (
        scenario(4, title) as tally,
        deployment(tmp_path, rule, ethereum=section) as world,
        Nursery(world) as nursery,
    ):
        for point in Nursery.POINTS:
            world.head()
            (approvals,) = sending.anchor_conditions(world.settings, "ethereum")
            assert isinstance(approvals, AnchoringApprovals)
            nursery.run("ethereum")  # which sends the root of before
            assert (world.row("ethereum").state, world.versions("ethereum")) == (HELD, [])
            for name in ("alice", "bob"):
                with world.store.transaction() as tx:
                    known = take(approvals, tx, world_row(world, tx), None)
                    assert known.envelope is not None
                    add(approvals, tx, signed(known.envelope, name), name)
                done = nursery.run("ethereum", **({"point": point} if name == "bob" else {}))
                assert done["killed"] == (name == "bob"), done
                assert name == "bob" or done["points"] == []
            tally.kills += 1
            settle(world, "ethereum", chain.mine)
        count(tally, world, "ethereum", on_ethereum(chain, since))
        assert chain.call("txpool_status")["pending"] == "0x0"
        world.fsck(tally)


def world_row(world: Deployment, tx: LedgerTx) -> AnchorRow:
    row = waiting(tx, "ethereum")
    assert row is not None, world.rows("ethereum")
    return row


@pytest.mark.parametrize("coins", [1, 3])
def test_bitcoin(tmp_path: Path, bitcoin_settings: BitcoinSettings, coins: int) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet(*["0.5"] * coins)
    since = int(str(regtest.rpc.call("getblockcount")))
    section = bitcoin_section(wallet)
    title = "SIGKILL at every step of publishing"
    with scenario(4, title) as tally, deployment(tmp_path, bitcoin=section) as world:
        torture(tally, world, "bitcoin", regtest.mine)
        count(tally, world, "bitcoin", on_bitcoin(wallet, since))
        world.fsck(tally)


def test_ipfs(tmp_path: Path, ipfs_url: str) -> None:
    title = "SIGKILL at every step of publishing"
    section = {"url": ipfs_url}
    with scenario(4, title) as tally, deployment(tmp_path, ipfs=section) as world:
        torture(tally, world, "ipfs", lambda blocks: None)
        found: Roots = on_ipfs(ipfs_url, [row.root for row in world.rows("ipfs")])
        count(tally, world, "ipfs", found)
        world.fsck(tally)
