"""10. A Bitcoin reorg confirms a replaced version: the anchor attaches to it, proof and all."""

from __future__ import annotations

from pathlib import Path

import pytest

from provenance.anchor.delivery import Outcome
from provenance.formats.receipt import Receipt
from provenance.ports.values import AnchorState, SignedVersion, anchor_payload
from provenance.proofs.bitcoin import double_sha256, parse_transaction, verify_anchor
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import bitcoin_section, deployment
from tests.faults.support.chains import count, on_bitcoin
from tests.faults.support.harness import rounds, scenario, seeded
from tests.support.nodes.regtest import NEVER_PAID, Regtest

pytestmark = pytest.mark.nodes


def test_reorg(tmp_path: Path, bitcoin_settings: BitcoinSettings) -> None:
    regtest = Regtest(bitcoin_settings)
    wallet = regtest.wallet("1.0", "1.0")
    since = int(str(regtest.rpc.call("getblockcount"))) + 1
    section = bitcoin_section(wallet, confirmations=6)
    title = "Bitcoin reorg that confirms a replaced version"
    with scenario(10, title) as tally, deployment(tmp_path, bitcoin=section) as world:
        rng = seeded()
        for turn in range(rounds(2, 50)):
            world.head()
            world.publish("bitcoin")
            assert world.confirm("bitcoin", bump_s=1.0).having(Outcome.BUMPED)
            old, new = (each.version for each in world.versions("bitcoin"))
            first, second = (new, old) if turn % 2 == 0 else (old, new)
            depth = rng.randint(1, 3)
            block = mine_with(regtest, first)
            regtest.mine(depth - 1)
            world.confirm("bitcoin")
            assert world.row("bitcoin").state is AnchorState.CONFIRMED
            for receipt in world.receipts("bitcoin"):
                proves(receipt, first, block)

            regtest.rpc.call("invalidateblock", block)
            tally.kills += 1
            if turn % 4 in (1, 2):  # a look while neither version is in a block
                assert world.confirm("bitcoin").having(Outcome.REORGED)
                assert world.receipts("bitcoin") == []
            other = mine_with(regtest, second)
            regtest.mine(depth)
            world.confirm("bitcoin")
            row = world.row("bitcoin")
            assert row.state is AnchorState.CONFIRMED
            counts = next(v for v in world.versions("bitcoin") if v.id == row.version_id)
            assert counts.version == second, "the anchor attaches to the version that is mined"
            assert world.receipts("bitcoin")
            for receipt in world.receipts("bitcoin"):
                proves(receipt, second, other)

            regtest.mine(5)
            world.confirm("bitcoin")
            assert world.row("bitcoin").state is AnchorState.FINAL
            assert len(world.versions("bitcoin")) == 2
            for receipt in world.receipts("bitcoin"):
                proves(receipt, second, other)
        count(tally, world, "bitcoin", on_bitcoin(wallet, since))
        world.fsck(tally)


def mine_with(regtest: Regtest, version: SignedVersion) -> str:
    """A block that holds this very version, whatever the mempool prefers."""
    mined = regtest.rpc.call("generateblock", NEVER_PAID, [version.raw.hex()])
    assert isinstance(mined, dict)
    return str(mined["hash"])


def proves(receipt: Receipt, version: SignedVersion, block: str) -> None:
    """The receipt's evidence leads from this version to this block, by raw bytes."""
    told = receipt.evidence
    transaction = bytes.fromhex(str(told["transaction"]))
    assert transaction == version.raw
    header = verify_anchor(
        transaction,
        bytes.fromhex(str(told["merkle_block"])),
        bytes.fromhex(str(told["header"])),
        anchor_payload(receipt.ledger.root),
        "regtest",
    )
    assert header.hash[::-1].hex() == block == receipt.anchor.block_hash
    assert parse_transaction(transaction).txid[::-1].hex() == receipt.anchor.transaction_id
    assert double_sha256(bytes.fromhex(str(told["header"]))) == header.hash
