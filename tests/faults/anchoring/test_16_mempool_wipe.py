"""16. Bitcoin mempool wipe and node restart: same txid sent again, inputs locked again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provenance.chains.bitcoin.rpc import BitcoinRpc
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings
from provenance_devnet import Devnet
from tests.conftest import ROOT, missing
from tests.faults.support.anchoring import Deployment, Nursery, bitcoin_section, deployment
from tests.faults.support.chains import count, on_bitcoin
from tests.faults.support.harness import rounds, scenario
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes

FORGETFUL = ("-persistmempool=0", "-walletbroadcast=0")
"""A restarted node knows nothing of the transaction, and its wallet does not send it again."""

DEAR = "-minrelaytxfee=0.01"
"""BTC/kvB, more than the configured cap: nothing of ours gets in."""


class Node:
    """A bitcoind of this test's own that is restarted over its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = self.start()
        self.wallet = self.settings.wallet

    def start(self, *flags: str) -> BitcoinSettings:
        self.devnet = Devnet(ROOT, self.folder, flags={"bitcoin": (*FORGETFUL, *flags)})
        (state,) = self.devnet.up(["bitcoin"])
        if not state.running:
            missing(f"bitcoin: {state.problem}; or run: make devnet")
        return BitcoinSettings(
            url=state.url, network="regtest", cookie_file=Path(state.detail["cookie_file"]),
            wallet=state.detail["wallet"], confirmations=3, timeout_s=15.0,
        )  # fmt: skip

    def restart(self, *flags: str) -> None:
        self.devnet.down(["bitcoin"])
        assert self.start(*flags).url == self.settings.url, "somebody took the port"


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Node(tmp_path_factory.mktemp("node"))
    yield made
    made.devnet.down()


def test_restart(tmp_path: Path, node: Node) -> None:
    regtest = Regtest(node.settings)
    wallet = regtest.wallet()
    node.wallet = wallet.wallet
    rpc: Any = BitcoinRpc(wallet)
    for _ in range(2):  # such a wallet cannot be paid by the node's other one
        rpc.call("generatetoaddress", 1, rpc.call("getnewaddress", "", "bech32", wallet=True))
    regtest.mine(101)
    since = int(str(regtest.rpc.call("getblockcount"))) + 1
    section = bitcoin_section(wallet)
    with (
        scenario(16, "Bitcoin mempool wipe and node restart") as tally,
        deployment(tmp_path, bitcoin=section) as world,
        Nursery(world) as nursery,
    ):
        for turn in range(rounds(2, 34)):
            world.head()
            if turn % 2:  # stored, never sent, and the publisher is dead
                assert nursery.run("bitcoin", point="stored")["killed"]
                tally.kills += 1
            else:
                world.publish("bitcoin")
                assert rpc.call("getrawmempool") == [id_of(world)]
            before = world.versions("bitcoin")
            state = world.row("bitcoin").state
            if turn % 4 < 2:  # up again, and it takes the transaction no more
                wiped(node, rpc, DEAR)
                tally.kills += 1
                look(world, state)
                assert rpc.call("getrawmempool") == []
                # What the wallet saw being sent, it counts as spent, and locks no more.
                inputs: Any = before[0].version.detail["inputs"]
                assert locks(rpc) == (inputs if state is AnchorState.SIGNED else [])
                free = {f"{c['txid']}:{c['vout']}" for c in rpc.call("listunspent", wallet=True)}
                assert free
                assert not free & set(inputs), "somebody else may spend it"
            wiped(node, rpc)
            tally.kills += 1

            world.head()  # another head is due meanwhile: it must not get a transaction now
            world.publish("bitcoin")
            look(world, state)
            first = next(r for r in world.rows("bitcoin") if r.version_id == before[0].id)
            assert first.state is AnchorState.SENT
            assert rpc.call("getrawmempool") == [before[0].version.transaction_id]
            with world.store.snapshot() as tx:
                assert [v.version.raw for v in tx.versions(first.id)] == [before[0].version.raw]
            for _ in range(3):
                regtest.mine(3)
                world.confirm("bitcoin")
                world.publish("bitcoin")
        regtest.mine(3)
        world.confirm("bitcoin")
        count(tally, world, "bitcoin", on_bitcoin(wallet, since))
        world.fsck(tally)


def wiped(node: Node, rpc: Any, *flags: str) -> None:
    """Restart, and see that mempool and locks are gone."""
    node.restart(*flags)
    if node.wallet not in rpc.call("listwallets"):
        rpc.call("loadwallet", node.wallet)
    assert rpc.call("getrawmempool") == []
    assert locks(rpc) == []


def look(world: Deployment, state: AnchorState) -> None:
    """What a sweep does for a row of this state."""
    if state is AnchorState.SENT:
        world.confirm("bitcoin")
    else:
        world.publish("bitcoin")


def locks(rpc: Any) -> list[str]:
    return [f"{c['txid']}:{c['vout']}" for c in rpc.call("listlockunspent", wallet=True)]


def id_of(world: Deployment) -> str:
    return world.versions("bitcoin")[-1].version.transaction_id
