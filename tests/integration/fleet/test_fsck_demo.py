"""After a real demo on real nodes the checker finds nothing; with its nodes gone it says so."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provenance.cli import main
from provenance.demo import run
from provenance.tickets import Ticket
from provenance.tracker import ProvenanceTracker
from provenance_devnet import Devnet
from tests.conftest import ROOT, missing

SERVERS = ("ethereum", "bitcoin", "ipfs")
Fsck = Callable[..., tuple[int, dict[str, Any]]]

pytestmark = [pytest.mark.nodes, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Deployment:
    base: Path
    devnet: Devnet
    networks: set[str]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    """A demo on a devnet of its own, whose servers go on running."""
    folder = Path(tempfile.mkdtemp(prefix="prov-fsck-"))
    root = folder / "root"
    (root / ".devnet").mkdir(parents=True)
    for name in ("bin", "opt"):
        (root / ".devnet" / name).symlink_to(ROOT / ".devnet" / name)
    devnet = Devnet(root)
    try:
        for state in devnet.up(SERVERS):
            if not state.running:
                missing(f"{state.name}: {state.problem}; or run: make devnet")
        options = run.DemoOptions(folder / "base", epochs=2, root=root)
        with two_anchors():
            document = run.run(options, lambda step, line: None)
        assert document["chain_integrity"] is True
        yield Deployment(folder / "base", devnet, set(document["networks"]))
    finally:
        devnet.down()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def two_anchors() -> Iterator[None]:
    """The training waits for its first anchors to be sent: else the second may cover them."""
    tickets: list[Ticket] = []
    before = ProvenanceTracker.store_merkle_on_blockchain_before_training
    after = ProvenanceTracker.store_merkle_on_blockchain_after_training

    def first(tracker: ProvenanceTracker, config: Mapping[str, object]) -> dict[str, Ticket]:
        made = before(tracker, config)
        tickets.extend(made.values())
        return made

    def second(tracker: ProvenanceTracker, results: Mapping[str, object]) -> dict[str, Ticket]:
        deadline = time.monotonic() + 60
        while not all(ticket.transaction_id for ticket in tickets):
            assert time.monotonic() < deadline, "the first anchors were not sent"
            time.sleep(0.1)
        return after(tracker, results)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProvenanceTracker, before.__name__, first)
        patch.setattr(ProvenanceTracker, after.__name__, second)
        yield


@pytest.fixture
def fsck(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> Fsck:
    def run(*flags: str) -> tuple[int, dict[str, Any]]:
        code = main(["fsck", "--json", "--base-dir", str(deployment.base), *flags])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_demo_is_clean(deployment: Deployment, fsck: Fsck) -> None:
    code, document = fsck("--config", str(deployment.base / "run" / "config.json"))
    assert document["findings"] == []
    assert document["unchecked"] == []
    assert code == 0
    assert set(document) == {"checked", "findings", "unchecked"}
    assert deployment.networks == {*SERVERS, "local"}
    assert document["checked"]["networks"] == 4
    assert document["checked"]["entries"] == document["checked"]["heads"] == 2
    assert document["checked"]["anchors"] == 8
    assert document["checked"]["transactions"] >= 8


def test_the_configuration_of_the_fleet_is_taken_where_none_is_given(fsck: Fsck) -> None:
    code, document = fsck()
    assert (code, document["checked"]["networks"]) == (0, 4)


def test_people_read_what_was_found(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fsck", "--base-dir", str(deployment.base)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("checked ")
    assert told[-1] == "clean"


@pytest.fixture
def database(deployment: Deployment) -> Iterator[sqlite3.Connection]:
    """The demo's database, put back as it was after the test."""
    path = deployment.base / "ledger.db"
    kept = path.with_name("kept.db")
    with sqlite3.connect(path) as source, sqlite3.connect(kept) as target:
        source.backup(target)
    connection = sqlite3.connect(path, isolation_level=None)
    yield connection
    connection.close()
    with sqlite3.connect(kept) as source, sqlite3.connect(path) as target:
        source.backup(target)
    kept.unlink()


def found(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(finding["kind"], finding["subject"]) for finding in document["findings"]}


@pytest.mark.parametrize("network", SERVERS)
def test_an_anchor_that_no_row_knows_is_found_on_its_chain(
    database: sqlite3.Connection, fsck: Fsck, network: str
) -> None:
    (id,) = database.execute(
        "SELECT id FROM anchors WHERE network=? AND size=2", (network,)
    ).fetchone()
    (txid,) = database.execute(
        "SELECT transaction_id FROM anchor_versions WHERE anchor_id=?", (id,)
    ).fetchone()
    for table in ("receipts", "anchor_versions", "nonces"):
        database.execute(f"DELETE FROM {table} WHERE anchor_id=?", (id,))
    database.execute("DELETE FROM anchors WHERE id=?", (id,))
    code, document = fsck()
    assert ("chain-orphan", f"{network} {txid}") in found(document)
    assert ("anchor-missing", f"{network} entry 1") in found(document)
    assert code == 1


@pytest.mark.parametrize("network", SERVERS)
def test_an_anchor_whose_transaction_is_another_is_found(
    database: sqlite3.Connection, fsck: Fsck, network: str
) -> None:
    """Two final anchors that name each other's transactions."""
    ids = [
        txid
        for (txid,) in database.execute(
            "SELECT transaction_id FROM anchor_versions WHERE network=? ORDER BY id", (network,)
        )
    ]
    for old, new in ((ids[0], "x"), (ids[1], ids[0]), ("x", ids[1])):
        database.execute(
            "UPDATE anchor_versions SET transaction_id=? WHERE transaction_id=?", (new, old)
        )
    _, document = fsck()
    assert ("chain-root", f"{network} head 1") in found(document)
    assert ("chain-root", f"{network} head 2") in found(document)
    differs = {("version-differs", f"{network} {txid}") for txid in ids}
    assert differs <= found(document) or network == "ethereum"
    assert ("receipt-invalid", f"{network} entry 0") in found(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transaction", "zz"),
        ("transaction", "00"),
        ("merkle_block", "00" * 80),
        ("header", "00" * 80),
        ("chain", "main"),
    ],
)
def test_a_bitcoin_receipt_whose_block_does_not_hold_is_found(
    database: sqlite3.Connection, fsck: Fsck, name: str, value: str
) -> None:
    where = "WHERE network='bitcoin' AND entry=1"
    (text,) = database.execute(f"SELECT document FROM receipts {where}").fetchone()
    document = json.loads(text)
    document["evidence"][name] = value
    again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    database.execute(f"UPDATE receipts SET document=? {where}", (again,))
    assert found(fsck()[1]) == {("receipt-invalid", "bitcoin entry 1")}


@pytest.mark.parametrize("field", ["transaction_id", "block_hash"])
def test_a_bitcoin_receipt_of_another_place_is_found(
    database: sqlite3.Connection, fsck: Fsck, field: str
) -> None:
    where = "WHERE network='bitcoin' AND entry=1"
    (text,) = database.execute(f"SELECT document FROM receipts {where}").fetchone()
    document = json.loads(text)
    document["anchor"][field] = "ab" * 32
    again = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    database.execute(f"UPDATE receipts SET document=? {where}", (again,))
    assert found(fsck()[1]) == {("receipt-invalid", "bitcoin entry 1")}


@pytest.mark.parametrize("raw", [b"", b"other"])
def test_stored_bytes_that_are_no_transaction_are_found(
    database: sqlite3.Connection, fsck: Fsck, raw: bytes
) -> None:
    (txid,) = database.execute(
        "SELECT transaction_id FROM anchor_versions WHERE network='bitcoin' ORDER BY id"
    ).fetchone()
    database.execute("UPDATE anchor_versions SET raw=? WHERE transaction_id=?", (raw, txid))
    assert found(fsck()[1]) == {("version-differs", f"bitcoin {txid}")}


def test_without_nodes_it_is_not_called_clean(deployment: Deployment, fsck: Fsck) -> None:
    deployment.devnet.down(SERVERS)
    code, document = fsck()
    assert (code, document["findings"]) == (3, [])
    assert sorted(line.partition(" ")[0].strip(":") for line in document["unchecked"]) == sorted(
        SERVERS
    )
    code, document = fsck("--offline")
    assert (code, document["findings"], document["unchecked"]) == (0, [], [])


def test_with_its_nodes_up_again_it_is_clean(deployment: Deployment, fsck: Fsck) -> None:
    """The dev chains are the same chains after a restart."""
    deployment.devnet.down(SERVERS)
    assert all(state.running for state in deployment.devnet.up(SERVERS))
    code, document = fsck()
    assert (code, document["findings"], document["unchecked"]) == (0, [], [])
