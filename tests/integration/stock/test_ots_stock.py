"""The stock OpenTimestamps client against bundles that a real regtest node has anchored."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from provenance import cli
from provenance.app.bundle import make_bundle
from provenance.app.verify import verify_path
from provenance.bootstrap import sending
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.record import Phase
from provenance.ledger.seal import append_root
from provenance.ports.values import AnchorState
from provenance.settings import BitcoinSettings
from tests.faults.support.anchoring import Deployment, bitcoin_section, deployment
from tests.support.nodes.regtest import Regtest
from tests.support.runs import some_run

pytestmark = pytest.mark.nodes

RECORD = "records/training/epoch/1/metrics/0.json"
RUNS = 1000
MOST_BYTES = 1536
"""A proof in a ledger of a thousand runs."""


@dataclass
class Stock:
    """``ots`` as somebody types it, with a node of their own."""

    node: str

    def __call__(self, *words: str, where: Path) -> tuple[int, str]:
        done = subprocess.run(
            [Path(sys.executable).parent / "ots", "--no-cache", *words],
            cwd=where,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        return done.returncode, said

    def verify(self, proof: str, where: Path) -> tuple[int, str]:
        return self("--btc-regtest", "--bitcoin-node", self.node, "verify", proof, where=where)


@pytest.fixture
def stock(bitcoin_settings: BitcoinSettings) -> Stock:
    assert bitcoin_settings.cookie_file is not None
    cookie = bitcoin_settings.cookie_file.read_text().strip()
    return Stock(f"http://{cookie}@{urlsplit(bitcoin_settings.url).netloc}")


@pytest.fixture
def regtest(bitcoin_settings: BitcoinSettings) -> Regtest:
    return Regtest(bitcoin_settings)


@pytest.fixture
def world(tmp_path: Path, regtest: Regtest) -> Iterator[Deployment]:
    with deployment(tmp_path / "home", bitcoin=bitcoin_section(regtest.wallet("1.0"))) as made:
        yield made


def others(world: Deployment, runs: int) -> None:
    """The ledger's other runs: two seals each."""
    policy = sending.seal_policy(world.settings)
    with world.store.transaction() as tx:
        for at in range(runs):
            run = some_run()
            tx.add_run(run, at.to_bytes(32, "big"), world.clock())
            for phase in (Phase.BEFORE, Phase.AFTER):
                root = bytes([phase is Phase.AFTER]) + at.to_bytes(31, "big")
                append_root(tx, run, phase, None, root, False, policy, world.clock())


def anchor(world: Deployment, regtest: Regtest) -> None:
    for _ in range(2):
        world.publish("bitcoin")
        regtest.mine(3)
        world.confirm("bitcoin")
    assert world.row("bitcoin").state is AnchorState.FINAL


def bundle(world: Deployment, to: Path) -> Path:
    return make_bundle(world.settings, str(world.runs[-1]), to, ots=True).path


@pytest.mark.timeout(300)
def test_stock_ots_accepts_a_record_and_the_head_in_a_ledger_of_a_thousand_runs(
    world: Deployment,
    regtest: Regtest,
    stock: Stock,
    tmp_path: Path,
) -> None:
    others(world, RUNS - 1)
    world.head()
    anchor(world, regtest)
    folder = bundle(world, tmp_path / "evidence")
    (head,) = [path.name for path in (folder / "heads").glob("*.root.ots")]
    assert head == f"{2 * RUNS}.root.ots"

    for proof in (f"{RECORD}.ots", f"heads/{head}"):
        code, said = stock.verify(proof, folder)
        assert code == 0, said
        assert re.search(r"Success! Bitcoin block \d+ attests existence as of", said), said

    size = (folder / f"{RECORD}.ots").stat().st_size
    code, info = stock("info", f"{RECORD}.ots", where=folder)
    assert code == 0, info
    assert "verify BitcoinBlockHeaderAttestation(" in info
    transaction = re.search(r"Transaction id ([0-9a-f]{64})", info)
    assert transaction is not None, info
    anchored = verify_path(world.settings, folder).networks["bitcoin"]["after"]
    assert transaction[1] == anchored.transaction_id
    assert size < MOST_BYTES
    print(f"{RECORD}.ots: {size} bytes; ots info prints {len(info)} characters")

    # Another number in the record, one bit in the head: refused.
    record, root = folder / RECORD, folder / "heads" / head.removesuffix(".ots")
    record.write_bytes(record.read_bytes().replace(b"0.9", b"0.8"))
    root.write_bytes(root.read_bytes()[:-1] + bytes([root.read_bytes()[-1] ^ 1]))
    for proof in (f"{RECORD}.ots", f"heads/{head}"):
        code, said = stock.verify(proof, folder)
        assert code == 1
        assert "File does not match original!" in said


def test_stock_ots_accepts_every_proof_of_a_bundle_and_refuses_forged_ones(
    world: Deployment, regtest: Regtest, stock: Stock, tmp_path: Path
) -> None:
    world.head()
    anchor(world, regtest)
    folder = bundle(world, tmp_path / "evidence")
    assert verify_path(world.settings, folder).outcome == "consistent"
    proofs = sorted(path.relative_to(folder) for path in folder.rglob("*.ots"))
    assert len(proofs) > 8
    for proof in proofs:
        code, said = stock.verify(str(proof), folder)
        assert code == 0, said
    target = folder / f"{RECORD}.ots"
    data = target.read_bytes()
    for at in (len(data) - 40, len(data) - 120):
        target.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        code, said = stock.verify(f"{RECORD}.ots", folder)
        assert code == 1, said
        assert "Success" not in said


def test_pending_proofs_are_upgraded_and_then_accepted(
    world: Deployment,
    regtest: Regtest,
    stock: Stock,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world.head()
    folder = bundle(world, tmp_path / "evidence")
    lone = tmp_path / "0.json.ots"
    shutil.copy(folder / f"{RECORD}.ots", lone)
    shutil.copy(folder / RECORD, lone.with_suffix(""))
    code, said = stock.verify(f"{RECORD}.ots", folder)
    assert code == 1, said
    code, said = stock("info", f"{RECORD}.ots", where=folder)
    assert "PendingAttestation" in said

    command = ["upgrade", str(folder), str(lone), "--json"]
    command += ["--config", str(world.config), "--base-dir", str(world.base)]
    assert cli.main(command) == 0
    results = json.loads(capsys.readouterr().out)["paths"]
    assert [result["status"] for result in results] == ["pending", "pending"]

    anchor(world, regtest)
    assert cli.main(command) == 0
    results = json.loads(capsys.readouterr().out)["paths"]
    assert [result["status"] for result in results] == ["upgraded", "upgraded"]
    assert lone.read_bytes() == (folder / f"{RECORD}.ots").read_bytes()
    for proof, where in ((f"{RECORD}.ots", folder), (lone.name, tmp_path)):
        code, said = stock.verify(proof, where)
        assert code == 0, said
    assert verify_path(world.settings, folder).outcome == "consistent"


def test_many_anchors_in_one_block_each_have_their_path(
    regtest: Regtest, stock: Stock, tmp_path: Path
) -> None:
    made = []
    for at in range(3):
        section = bitcoin_section(regtest.wallet("1.0"))
        made.append(deployment(tmp_path / f"home-{at}", bitcoin=section))
    worlds = [each.__enter__() for each in made]
    try:
        for world in worlds:
            world.head()
            world.publish("bitcoin")
        regtest.mine(3)
        for at, world in enumerate(worlds):
            world.confirm("bitcoin")
            folder = bundle(world, tmp_path / f"evidence-{at}")
            proof = TimestampFile.decode((folder / f"{RECORD}.ots").read_bytes(), canonical=True)
            assert len(list(proof.timestamp.walk())) == 1
            code, said = stock.verify(f"{RECORD}.ots", folder)
            assert code == 0, said
    finally:
        for each in made:
            each.__exit__(None, None, None)
