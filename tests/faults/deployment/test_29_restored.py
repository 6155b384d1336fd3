"""29. The database is restored from a backup: nothing is signed until the ledger is whole again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provenance.app.bundle import make_bundle
from provenance.bootstrap import guarding, sending
from provenance.cli import main
from provenance.errors import LedgerForkError
from provenance.formats.checkpoint import Head
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import (
    Deployment,
    anchored,
    bitcoin_section,
    deployment,
    ethereum_section,
)
from tests.faults.support.harness import scenario
from tests.support.nodes.ethereum_chain import Anvil
from tests.support.nodes.regtest import Regtest

pytestmark = pytest.mark.nodes
pytest_plugins = ["tests.support.nodes.fixtures_ethereum"]
BEFORE, LOST = 2, 3
"""Runs in the backup, and behind it."""


def newest(world: Deployment) -> Head:
    with world.store.snapshot() as tx:
        row = tx.head()
    assert row is not None
    return Head(world.settings.origin, row.size, row.root)


def command(world: Deployment, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    flags = ("--config", str(world.config), "--base-dir", str(world.base), "--json")
    code = main([*words, *flags])
    return code, json.loads(capsys.readouterr().out)


def test_a_restored_database_is_refused_and_recovered(
    tmp_path: Path,
    bitcoin_settings: BitcoinSettings,
    chain: Anvil,
    contract: str,
    ipfs_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    regtest, home = Regtest(bitcoin_settings), tmp_path / "home"
    sections: Mapping[str, Any] = {
        "ethereum": ethereum_section(chain.url, contract_address=contract),
        "bitcoin": bitcoin_section(regtest.wallet("1.0")),
        "ipfs": {"url": ipfs_url},
        "local": {},
    }
    with scenario(29, "restored from a backup: refused, then recovered") as tally:
        with deployment(home, **sections) as world:
            for _ in range(BEFORE):
                anchored(world, regtest, chain)
        shutil.copytree(home, tmp_path / "backup")
        with deployment(home, **sections) as world:
            for at in range(LOST):
                anchored(world, regtest, chain)
                make_bundle(world.settings, str(world.runs[-1]), tmp_path / f"bundle{at}")
            signed = newest(world)
        for path in home.glob("ledger.db*"):
            path.unlink()
        shutil.copy(tmp_path / "backup" / "ledger.db", home)
        tally.kills += 1

        with deployment(home, **sections) as world:
            with pytest.raises(LedgerForkError, match="is behind: its ledger has 4 entries"):
                world.head()
            assert newest(world).size == 2 * BEFORE
            code, told = command(world, capsys, "ledger", "head")
            assert (code, told["size"]) == (1, 2 * BEFORE)
            # Each network by itself would have told, had the file gone with the database.
            for name in guarding.SEARCHED:
                reason = guarding.find_strangers(world.settings, name, world.store, world.clock())
                assert reason is not None, name
                assert reason.startswith(f"fork: {name} shows the root "), reason
            some = ("ledger", "recover", str(tmp_path / "bundle0"))
            code, told = command(world, capsys, *some)
            assert code == 2
            assert told["error"].startswith("recover: 4 of 6 entries are in no bundle")
            assert newest(world).size == 2 * BEFORE
            every = [str(tmp_path / f"bundle{at}") for at in range(LOST)]
            code, told = command(world, capsys, "ledger", "recover", *every)
            assert code == 0, told
            assert (told["entries"], told["runs"]) == (2 * LOST, LOST)
            tally.events = told["records"]
            assert newest(world) == signed
            assert command(world, capsys, "ledger", "head")[0] == 0
            world.fsck(tally)
            anchored(world, regtest, chain)
            for name in world.networks:
                assert world.paused(name) is None
                again = guarding.find_strangers(world.settings, name, world.store, world.clock())
                assert again is None, name
            world.fsck(tally)
            assert command(world, capsys, "verify", str(world.runs[-1]))[0] == 0


def test_the_file_gone_with_the_database_is_told_by_the_networks(
    tmp_path: Path, chain: Anvil, contract: str
) -> None:
    """Nothing but the chain remembers: that network is paused, and nothing more is signed."""
    home = tmp_path / "home"
    sections = {"ethereum": ethereum_section(chain.url, contract_address=contract)}

    def one(world: Deployment) -> None:
        world.head()
        world.publish("ethereum")
        chain.mine(3)
        world.confirm("ethereum")

    with scenario(29, "restored from a backup: the chain tells") as tally:
        with deployment(home, **sections) as world:
            one(world)
        shutil.copytree(home, tmp_path / "backup")
        with deployment(home, **sections) as world:
            one(world)
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "backup", home)
        tally.kills += 1
        with deployment(home, **sections) as world:
            policy = sending.seal_policy(world.settings)
            assert policy.guard is not None
            policy.guard.check(world.store)
            found = guarding.find_strangers(world.settings, "ethereum", world.store, world.clock())
            assert found is not None
            with pytest.raises(LedgerForkError, match="fork: ethereum shows the root"):
                policy.guard.check(world.store)


def test_an_anchors_file_older_than_the_database_is_no_place_to_append(tmp_path: Path) -> None:
    """Lines that are appended to it would contradict those of the newer one."""
    home = tmp_path / "home"
    anchors, kept = home / "anchors.jsonl", tmp_path / "anchors.jsonl"

    def told(world: Deployment) -> str | None:
        return guarding.find_strangers(world.settings, "local", world.store, world.clock())

    with scenario(29, "restored from a backup: the anchors file is older") as tally:
        with deployment(home, local={}) as world:
            for _ in range(2):
                world.head()
                world.publish("local")
                world.confirm("local")
                if not kept.exists():
                    shutil.copy(anchors, kept)
            newer = tmp_path / "newer"
            anchors.rename(newer)
            shutil.copy(kept, anchors)
            tally.kills += 1
            found = told(world)
            assert found is not None
            assert found.startswith("fork: local lacks the anchor of head 4, which the database")
            with pytest.raises(LedgerForkError, match="put the newer copy back"):
                guard = sending.seal_policy(world.settings).guard
                assert guard is not None
                guard.check(world.store)
            shutil.copy(newer, anchors)
            assert told(world) is None
            assert world.paused("local") is None
            world.fsck(tally)
