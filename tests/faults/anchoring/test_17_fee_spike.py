"""17. Fee spike: bumps on one nonce or input, stops at the cap, says so, resumes later."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from provenance.anchor.delivery import Outcome
from provenance.chains.ethereum.fees import GWEI, least_bump
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import Deployment, bitcoin_section, deployment, ethereum_section
from tests.faults.support.chains import count, on_bitcoin, on_ethereum
from tests.faults.support.harness import rounds, scenario, seeded
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
TITLE = "fee spike"
CAP_GWEI = 40


def test_ethereum(tmp_path: Path, chain: Anvil) -> None:
    chain.automine(False)
    since = int(chain.call("eth_blockNumber"), 16) + 1

    def block(base_gwei: float) -> None:
        chain.call("anvil_setNextBlockBaseFeePerGas", hex(int(base_gwei * GWEI)))
        chain.mine()

    section = ethereum_section(chain.url, max_fee_gwei=CAP_GWEI)
    with scenario(17, TITLE) as tally, deployment(tmp_path, ethereum=section) as world:
        rng = seeded()
        for _ in range(rounds(2, 25)):
            block(1)
            world.head()
            world.publish("ethereum")
            while least_bump(highest(world)) <= CAP_GWEI * GWEI:
                above = highest(world) / GWEI * (1 + rng.random() / 4) + 0.1
                block(min(above, CAP_GWEI * 0.99))
                assert world.confirm("ethereum", bump_s=1.0).having(Outcome.BUMPED)
            for _ in range(3):
                block(CAP_GWEI * (1.1 + rng.random()))
                assert world.confirm("ethereum", bump_s=1.0).having(Outcome.HELD)
                assert "cap" in (world.row("ethereum").reason or "")
                tally.kills += 1
            one_nonce(world)
            assert world.row("ethereum").state is AnchorState.SENT
            assert world.paused("ethereum") is None

            world.head()  # a head that becomes due in the spike waits unsigned
            block(CAP_GWEI * 2)
            world.publish("ethereum")
            assert world.row("ethereum").state is AnchorState.DUE
            assert "waiting for it to fall" in (world.row("ethereum").reason or "")

            for _ in range(8):  # and the spike is over
                block(1)
                world.publish("ethereum")
                world.confirm("ethereum")
            assert {row.state for row in world.rows("ethereum")} == {AnchorState.FINAL}
        assert chain.call("txpool_status") == {"pending": "0x0", "queued": "0x0"}
        count(tally, world, "ethereum", on_ethereum(chain, since))
        world.fsck(tally)


def highest(world: Deployment) -> int:
    return world.versions("ethereum")[-1].version.fee


def one_nonce(world: Deployment) -> None:
    """Every version on one nonce, each offer above the one before, none above the cap."""
    versions = [each.version for each in world.versions("ethereum")]
    assert len({version.nonce for version in versions}) == 1
    assert len(versions) > 2
    assert all(low.fee < high.fee for low, high in pairwise(versions))
    assert versions[-1].fee <= CAP_GWEI * GWEI


def test_bitcoin(tmp_path: Path, bitcoin_settings: BitcoinSettings) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet("1.0", "1.0")
    since = int(str(regtest.rpc.call("getblockcount"))) + 1
    section = bitcoin_section(wallet, max_fee_rate=20.0)
    with scenario(17, TITLE) as tally, deployment(tmp_path / "a", bitcoin=section) as world:
        for turn in range(rounds(2, 12)):
            world.head()
            world.publish("bitcoin")
            while world.confirm("bitcoin", bump_s=1.0).having(Outcome.BUMPED):
                regtest.mine_empty()
            assert "max_fee_rate" in (world.row("bitcoin").reason or "")
            tally.kills += 1
            assert world.row("bitcoin").state is AnchorState.SENT
            versions = [each.version for each in world.versions("bitcoin")]
            assert len(versions) > 2
            spent = [set(map(str, version.detail["inputs"])) for version in versions]  # type: ignore[arg-type]  # JSON, or known to be there
            assert all(old <= new for old, new in pairwise(spent)), "a bump left an input out"
            assert all(float(str(v.detail["feerate"])) <= 20.0 for v in versions)
            if turn % 2:  # the operator raises the cap, and it goes on
                raised = deployment(tmp_path / "a", bitcoin={**section, "max_fee_rate": 60.0})
                with raised as again:
                    again.skew = world.skew
                    assert again.confirm("bitcoin", bump_s=1.0).having(Outcome.BUMPED)
                    world.skew = again.skew
            regtest.mine(3)
            world.confirm("bitcoin")
            assert world.row("bitcoin").state is AnchorState.FINAL
        count(tally, world, "bitcoin", on_bitcoin(wallet, since))
        world.fsck(tally)
