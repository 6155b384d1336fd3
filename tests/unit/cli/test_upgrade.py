"""``provenance upgrade``: pending proofs become complete, and nothing else changes.

Over 400 lines: case by case, one subject.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from provenance import cli
from provenance.app import upgrade
from provenance.app.bundle import make_bundle
from provenance.app.report import write_report
from provenance.app.upgrade import Upgrade, exit_code
from provenance.app.verify import verify_path
from provenance.bootstrap import reading, sending
from provenance.bundle.attachments.opentimestamps import calendar_uri
from provenance.bundle.reader import read_bundle
from provenance.bundle.writer import write_bundle
from provenance.errors import IntegrityError, StoreUnavailable
from provenance.evidence.disclosure import withhold
from provenance.formats.opentimestamps.file import TimestampFile
from provenance.formats.opentimestamps.tree import SHA256, Bitcoin, Pending, Timestamp, append
from provenance.formats.receipt import Receipt
from provenance.settings import Settings, load
from tests.support.nodes.bitcoin_evidence import Block
from tests.support.nodes.memory_chain import MemoryChain, MemoryNetwork
from tests.support.verify_world import OTHER, RUN, World, config, ending, metrics, seal, story

pytestmark = pytest.mark.slow

METRICS = "records/training/epoch/2/metrics/0.json"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PROVENANCE_")]:
        monkeypatch.delenv(name)


@dataclass
class Deployment:
    """A database of a finished run, whose anchors the test moves on."""

    world: Any
    settings: Settings

    @classmethod
    def at(cls, base: Path) -> Deployment:
        settings = load(None, base)
        world: Any = World(names=())
        world.store.close()
        world.store = sending.open_store(settings)
        world.networks = {"bitcoin": MemoryNetwork(MemoryChain(chain_id=9), name="bitcoin")}
        signer = sending.seal_policy(settings).signer
        world.policy = type(world.policy)(("bitcoin",), signer, grace_s=60.0)
        return cls(world, settings)

    def anchor(self, final: bool = True) -> None:
        """Anchors become final, with receipts that are Bitcoin's."""
        self.world.anchor()
        with self.world.store.transaction() as tx:
            for run in [row.run for row in tx.runs()]:
                for row in tx.receipts(run):
                    receipt = Receipt.decode(row.document.encode())
                    block = Block(receipt.anchor.payload, 1000 + receipt.ledger.size)
                    document = block.bitcoin(receipt, final).encode().decode()
                    tx.add_receipts([replace(row, document=document)])

    def bundle(self, to: str = "bundle") -> Path:
        return make_bundle(self.settings, str(RUN), Path(to).absolute(), ots=True).path


@pytest.fixture
def waiting(tmp_path: Path) -> Deployment:
    found = Deployment.at(tmp_path / "artifacts")
    found.world.ingest(found.world.batch(story()))
    return found


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run_it(*paths: object) -> tuple[int, list[dict[str, Any]]]:
        capsys.readouterr()  # what was sealed before is logged
        code = cli.main(["upgrade", *map(str, paths), "--json"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, json.loads(captured.out)["paths"]

    return run_it


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def ends(path: Path) -> list[object]:
    data = path.read_bytes()
    return [end for _, end in TimestampFile.decode(data).timestamp.walk()]


# --- bundles -----------------------------------------------------------------------------


def test_a_bundle_is_pending_then_complete(waiting: Deployment, said: Callable[..., Any]) -> None:
    folder = waiting.bundle()
    before = bytes_of(folder)
    proofs = [name for name in before if name.endswith(".ots")]
    assert said(folder) == (
        0,
        [{"path": str(folder), "status": "pending", "completed": 0, "pending": len(proofs),
          "problem": None}],
    )  # fmt: skip
    assert bytes_of(folder) == before
    waiting.anchor()
    code, (result,) = said(folder)
    replaced = {"heads/1.root.ots"}  # the anchor of the second head covers the first
    assert (code, result["status"]) == (0, "upgraded")
    assert result["completed"] == len(set(proofs) - replaced)
    assert (result["pending"], result["problem"]) == (0, None)
    assert ends(folder / f"{METRICS}.ots") == [Bitcoin(1002)]
    assert verify_path(waiting.settings, folder).outcome == "consistent"
    after = bytes_of(folder)
    assert said(folder)[1][0]["status"] == "complete"
    assert bytes_of(folder) == after
    for name in before:
        if name.startswith("records/") and name.endswith(".json"):
            assert after[name] == before[name]


def test_confirmed_is_still_pending(waiting: Deployment, said: Callable[..., Any]) -> None:
    folder = waiting.bundle()
    waiting.anchor(final=False)
    code, (result,) = said(folder)
    assert (code, result["status"]) == (0, "pending")


def test_a_zip_and_a_report_folder_are_upgraded_in_place(
    waiting: Deployment, said: Callable[..., Any]
) -> None:
    packed = waiting.bundle("packed.zip")
    write_report(waiting.settings, str(RUN), Path("report"))
    waiting.anchor()
    code, results = said(packed, "report")
    assert (code, [r["status"] for r in results]) == (0, ["upgraded", "upgraded"])
    assert results[1]["path"] == "report/evidence"
    for place in (packed, Path("report/evidence")):
        assert verify_path(waiting.settings, place).outcome == "consistent"


def test_what_is_withheld_stays_withheld(waiting: Deployment, said: Callable[..., Any]) -> None:
    evidence = read_bundle(waiting.bundle("all"))
    folder = write_bundle(withhold(evidence, ["metrics"]), Path("some").absolute(), ots=True)
    assert not (folder / "records/training/config.json").exists()
    waiting.anchor()
    assert said(folder)[1][0]["status"] == "upgraded"
    upgraded = read_bundle(folder)
    kept = {r.path for r in upgraded.records if r.withheld}
    assert kept == {r.path for r in read_bundle(folder).records if r.withheld}
    assert "training/config" in kept
    assert not (folder / "records/training/config.json").exists()
    assert (folder / METRICS).exists()
    assert ends(folder / "records/training/config.json.ots") == [Bitcoin(1002)]
    assert verify_path(waiting.settings, folder).outcome != "failed"


def test_a_run_that_went_on_grows_in_its_bundle(tmp_path: Path, said: Callable[..., Any]) -> None:
    found = Deployment.at(tmp_path / "artifacts")
    world = found.world
    events = ending([config(), seal("before"), metrics(1), metrics(2)])
    world.ingest(world.batch(events[:2]))
    folder = found.bundle()
    world.ingest(world.batch(events[2:], first=2))
    found.anchor()
    code, (result,) = said(folder)
    assert (code, result["status"]) == (0, "upgraded")
    assert (folder / f"{METRICS}.ots").exists()


def test_a_bundle_that_was_changed_is_left_as_it_is(
    waiting: Deployment, said: Callable[..., Any]
) -> None:
    folder = waiting.bundle()
    waiting.anchor()
    (folder / METRICS).write_bytes(b"{}")
    before = bytes_of(folder)
    code, (result,) = said(folder)
    assert (code, result["status"]) == (1, "failed")
    assert METRICS in result["problem"]
    assert result["problem"].endswith("nothing was changed")
    assert bytes_of(folder) == before


def test_a_database_that_tells_another_story_changes_nothing(
    waiting: Deployment, said: Callable[..., Any], tmp_path: Path
) -> None:
    folder = waiting.bundle()
    shutil.copytree(folder, "first")
    waiting.world.store.close()
    shutil.rmtree(tmp_path / "artifacts")
    other = Deployment.at(tmp_path / "artifacts")
    other.world.ingest(other.world.batch(story(2)))
    other.anchor()
    before = bytes_of(folder)
    code, (result,) = said(folder)
    assert (code, result["status"]) == (1, "failed")
    assert "the database has another; nothing was changed" in result["problem"]
    assert bytes_of(folder) == before


def test_what_was_complete_does_not_become_pending(
    waiting: Deployment, said: Callable[..., Any]
) -> None:
    waiting.anchor()
    folder = waiting.bundle()
    waiting.world.sql("DELETE FROM receipts")
    before = bytes_of(folder)
    code, (result,) = said(folder)
    assert (code, result["status"]) == (1, "failed")
    assert "is complete, and the database has no final receipt for it" in result["problem"]
    assert bytes_of(folder) == before


def test_another_ledger_key_and_other_records_are_refused(waiting: Deployment) -> None:
    old = read_bundle(waiting.bundle())
    like = upgrade._Deployment._like
    assert like(old, old) == replace(old, vkey=old.vkey)
    assert like(old, replace(old, vkey=None)).vkey == old.vkey
    with pytest.raises(IntegrityError, match="its ledger key is"):
        like(old, replace(old, vkey="another"))
    with pytest.raises(IntegrityError, match="its record"):
        like(old, replace(old, records=old.records[1:]))


def test_a_run_or_database_that_is_not_there(
    waiting: Deployment, said: Callable[..., Any], tmp_path: Path
) -> None:
    folder = waiting.bundle()
    evidence = read_bundle(folder)
    lost = write_bundle(
        replace(evidence, run=OTHER, producers=(), records=(), entries=(), receipts=()),
        Path("lost").absolute(),
    )
    code, (result,) = said(lost)
    assert (code, result["status"]) == (2, "refused")
    assert "not in the database" in result["problem"]
    waiting.world.store.close()
    shutil.rmtree(tmp_path / "artifacts")
    code, results = said(folder, lost)
    assert (code, [r["status"] for r in results]) == (2, ["refused", "refused"])
    assert "there is no database yet" in results[0]["problem"]


# --- lone files --------------------------------------------------------------------------


def test_lone_files_of_a_record_and_a_head(waiting: Deployment, said: Callable[..., Any]) -> None:
    folder = waiting.bundle()
    record, head = Path("0.json.ots"), Path("2.root.ots")
    shutil.copy(folder / f"{METRICS}.ots", record)
    shutil.copy(folder / "heads/2.root.ots", head)
    record.chmod(0o640)
    before = record.read_bytes()
    code, results = said(record, head)
    assert (code, [r["status"] for r in results]) == (0, ["pending", "pending"])
    assert record.read_bytes() == before
    waiting.anchor()
    complete = waiting.bundle("complete")
    code, results = said(record, head)
    assert (code, [r["status"] for r in results]) == (0, ["upgraded", "upgraded"])
    assert [r["completed"] for r in results] == [1, 1]
    assert record.read_bytes() == (complete / f"{METRICS}.ots").read_bytes()
    assert head.read_bytes() == (complete / "heads/2.root.ots").read_bytes()
    assert record.stat().st_mode & 0o777 == 0o640
    assert [r["status"] for r in said(record, head)[1]] == ["complete", "complete"]
    assert sorted(p.name for p in Path().iterdir()) == [
        "0.json.ots", "2.root.ots", "artifacts", "bundle", "complete",
    ]  # fmt: skip


def test_other_calendars_attestations_stay(waiting: Deployment, said: Callable[..., Any]) -> None:
    folder = waiting.bundle()
    tree = TimestampFile.decode((folder / f"{METRICS}.ots").read_bytes()).timestamp
    ((root, own),) = tree.walk()
    other = Pending("https://alice.btc.calendar.example")
    both = tree.extend(Timestamp(root, [other]))
    mixed, link = Path("mixed.ots"), Path("link.ots")
    mixed.write_bytes(TimestampFile(both).encode())
    link.symlink_to(mixed)
    waiting.anchor()
    assert said(link)[1][0]["status"] == "upgraded"
    assert link.is_symlink()
    assert set(ends(mixed)) == {other, Bitcoin(1002)}
    assert own == Pending(calendar_uri(waiting.settings.origin))
    assert said(mixed)[1][0]["status"] == "complete"


def test_files_of_nobody_here_are_said_to_be(waiting: Deployment, said: Callable[..., Any]) -> None:
    digest = b"\7" * 32
    foreign = Timestamp.of_walk(digest, [SHA256], Pending("https://alice.example"))
    Path("foreign.ots").write_bytes(TimestampFile(foreign).encode())
    done = Timestamp.of_walk(digest, [append(b"x")], Bitcoin(1)).merge(foreign)
    Path("done.ots").write_bytes(TimestampFile(done).encode())
    code, (first, second) = said("foreign.ots", "done.ots")
    assert code == 1
    assert (first["status"], second["status"]) == ("failed", "complete")
    assert "which this ledger does not know" in first["problem"]


def test_one_failure_stops_no_other(
    waiting: Deployment, said: Callable[..., Any], tmp_path: Path
) -> None:
    folder = waiting.bundle()
    good = Path("good.ots")
    shutil.copy(folder / f"{METRICS}.ots", good)
    Path("junk.ots").write_bytes(b"junk")
    Path("empty").mkdir()
    Path("other.txt").write_text("x")
    Path("folder.ots").mkdir()
    os.mkfifo("pipe.ots")
    waiting.anchor()
    paths = (
        "junk.ots", "empty", "other.txt", "none.txt", "none.ots", "folder.ots", "pipe.ots",
        folder / f"{METRICS}.ots", good, folder,
    )  # fmt: skip
    code, results = said(*paths)
    assert code == 2
    assert [r["status"] for r in results] == ["refused"] * 8 + ["upgraded"] * 2
    told = [r["problem"] or "" for r in results]
    for problem, expected in zip(
        told,
        (
            "not an OpenTimestamps proof", "not a bundle", "found neither a bundle nor an .ots",
            "there is no such file, expected a bundle or an .ots",
            "No such file", "not a bundle", "is no file", "is part of the bundle",
        ),
        strict=False,
    ):  # fmt: skip
        assert expected in problem
        assert "\n" not in problem


def test_a_receipt_that_does_not_hold_completes_nothing(
    waiting: Deployment, said: Callable[..., Any]
) -> None:
    lone = Path("lone.ots")
    shutil.copy(waiting.bundle() / f"{METRICS}.ots", lone)
    before = lone.read_bytes()
    waiting.anchor()
    with waiting.world.store.transaction() as tx:
        for row in tx.receipts(RUN):
            receipt = Receipt.decode(row.document.encode())
            header = bytearray.fromhex(str(receipt.evidence["header"]))
            header[40] ^= 1
            forged = replace(receipt, evidence={**receipt.evidence, "header": header.hex()})
            tx.add_receipts([replace(row, document=forged.encode().decode())])
    code, (result,) = said(lone)
    assert (code, result["status"]) == (1, "failed")
    assert lone.read_bytes() == before


def test_a_database_that_is_away_is_asked_once(
    waiting: Deployment, said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = waiting.bundle()
    lone = Path("lone.ots")
    shutil.copy(folder / f"{METRICS}.ots", lone)
    asked = []

    def away(settings: Settings, *, create: bool = True) -> None:
        asked.append(settings)
        raise StoreUnavailable("the database did not answer")

    monkeypatch.setattr(reading, "open_store", away)
    code, results = said(folder, lone)
    assert (code, [r["status"] for r in results]) == (3, ["unreachable", "unreachable"])
    assert len(asked) == 1


# --- the command -------------------------------------------------------------------------


def test_each_path_has_its_line(waiting: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    folder = waiting.bundle()
    assert cli.main(["upgrade", str(folder), "none.ots"]) == 2
    count = sum(name.endswith(".ots") for name in bytes_of(folder))
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: {count} still pending",
        "none.ots: refused: No such file or directory",
    ]
    waiting.anchor()
    assert cli.main(["upgrade", str(folder)]) == 0
    assert cli.main(["upgrade", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: {count - 1} completed, 0 still pending",
        f"{folder}: nothing is pending",
    ]


def test_exit_codes() -> None:
    def results(*states: Upgrade) -> list[upgrade.Upgraded]:
        return [upgrade.Upgraded("x", state) for state in states]

    assert exit_code(results(Upgrade.UPGRADED, Upgrade.PENDING, Upgrade.COMPLETE)) == 0
    assert exit_code(results(Upgrade.UNREACHABLE, Upgrade.PENDING)) == 3
    assert exit_code(results(Upgrade.UNREACHABLE, Upgrade.REFUSED)) == 2
    assert exit_code(results(Upgrade.UNREACHABLE, Upgrade.REFUSED, Upgrade.FAILED)) == 1
