"""Outcomes of later verifications: entries of the ledger, in the bundle, and what is refused."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery
from provenance.anchor.publish import publish
from provenance.app.fsck import fsck
from provenance.app.log.export import export
from provenance.app.log.recover import recover
from provenance.app.log.runs import from_source, unanchored, with_roll
from provenance.bootstrap import reading, sending
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files, write_files
from provenance.cli import main
from provenance.evidence.from_database import from_store
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.checkpoint import parse_note
from provenance.formats.json_text import canonical_json
from provenance.formats.tlog.outcome import FILE, MAX_SHOWN, Outcome, ShownOutcomes
from provenance.fsck.findings import FindingKind as F
from provenance.ledger.seal import SealPolicy, sign_grown
from provenance.ports.store import LedgerStore
from provenance.ports.values import AnchorState, Work
from provenance.roll import roll
from provenance.roll.from_database import roll_of
from provenance.settings import RetrySettings, Settings
from provenance.settings.values import VerificationSettings
from provenance.verify.verifier import verify
from provenance.watch.again import LEASE_S, verify_next
from tests.support import stranger
from tests.support.model_world import deployment
from tests.support.verify_world import NOW, RUN, World, story
from tests.unit.watch.test_again import EVERY, LATER, tamper

pytestmark = pytest.mark.slow


@dataclass
class Watched:
    settings: Settings
    store: LedgerStore
    policy: SealPolicy

    def again(self, at: float) -> None:
        assert verify_next(self.settings, self.store, self.policy, lambda: at) is not None

    def anchor(self, at: float) -> None:
        [network] = sending.open_networks(self.settings).values()
        how = ("owner", 60.0, RetrySettings(), lambda: 0.0, ())
        publish(AnchorDelivery(self.store, network, lambda: at, *how))
        later = AnchorDelivery(self.store, network, lambda: at + 1000.0, *how)
        confirm(later, poll_s=1.0, fee_bump_after_s=600.0)

    def evidence(self) -> RunEvidence:
        return from_store(self.store, RUN, self.policy.signer.verifier)

    def rows(self) -> list[Outcome]:
        with self.store.snapshot() as tx:
            return [Outcome.decode(row.document) for row in tx.outcomes(RUN)]

    def sizes(self) -> list[int]:
        with self.store.snapshot() as tx:
            return sorted(row.size for row in tx.anchors("local"))

    def states(self) -> list[str]:
        with self.store.snapshot() as tx:
            rows = sorted(tx.anchors("local"), key=lambda row: row.size)
            return [row.state.value for row in rows]

    def findings(self) -> list[tuple[F, str]]:
        return [(f.kind, f.subject) for f in fsck(self.settings, offline=True).findings]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A run that was verified again twice, a day apart, and what that made due is anchored."""
    settings = msgspec.structs.replace(
        deployment(tmp_path / "base"), verification=VerificationSettings(EVERY, None)
    )
    with closing(sending.open_store(settings)) as store:
        with store.transaction() as tx:
            tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
        own = Watched(settings, store, sending.seal_policy(settings))
        own.again(LATER)
        own.again(LATER + EVERY)
        own.anchor(LATER + EVERY)
        yield own


def test_each_outcome_is_an_entry_and_everybody_accounts_for_it(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = watched.rows()
    assert (first.number, first.outcome, first.failed) == (1, "verified", ())
    assert (second.number, second.at - first.at) == (2, int(EVERY))
    with watched.store.snapshot() as tx:
        roots, seals = tx.roots(0, tx.ledger_size()), tx.entries()
        head = tx.head()
    assert [first.digest(), second.digest()] == list(roots[-2:])
    assert [entry.index for entry in seals] == [0, 1]
    assert first.root == seals[-1].root
    assert head is not None
    assert head.size == 4
    assert watched.findings() == []
    assert main(["log", "runs", "--base-dir", str(watched.settings.base_dir)]) == 0
    assert "outcomes under no head that a chain has: 2\n" in capsys.readouterr().out

    folder = tmp_path / "tiles"
    assert export(watched.store, folder, watched.policy.signer.verifier).unaccounted == 0
    [item] = from_source(str(folder), watched.policy.signer.verifier).roll.runs
    assert (item.entries, item.outcomes, item.state) == ((0, 1), (2, 3), "finished")
    theirs = stranger.load("beyond.roll").accounts(
        (folder / "tile/accounts/000.p/4").read_bytes(), 4
    )
    assert [stranger.load("beyond.outcomes").digest(each) for each in theirs[2:]] == list(roots[2:])


def test_a_bundle_shows_them_and_the_verifier_says_so(watched: Watched) -> None:
    evidence = watched.evidence()
    files = bundle_files(evidence)
    report = verify(read_bundle(files_source(files)), None, now=NOW)
    assert not report.findings
    [line] = [each.problem for each in report.notices if each.subject == FILE]
    assert re.fullmatch(
        r"verified again 2 times, last 2096-.*Z: always verified; no receipt here puts the last 2 "
        r"on a chain; the last is of a time that is to come",
        line,
    )
    assert any(line.startswith("That the later verifications") for line in report.not_checked)
    theirs = stranger.load().Bundle(files)
    assert theirs.problems == []
    assert f"{FILE}: verified again 2 times: verified, verified" in theirs.unproven
    with_all = with_roll(watched.settings, evidence)
    assert set(with_all.attachments) == {FILE, roll.FILE}
    assert stranger.load().Bundle(bundle_files(with_all)).problems == []


def files_source(files: dict[str, bytes]) -> MemorySource:
    return MemorySource(files, "bundle")


def test_a_change_shows_with_its_day_and_the_checks_that_failed(watched: Watched) -> None:
    tamper(watched.settings)
    watched.again(LATER + 2 * EVERY)
    tamper(watched.settings, "lo55", "loss")
    watched.again(LATER + 3 * EVERY)
    assert [(each.outcome, each.failed) for each in watched.rows()[2:]] == [
        ("failed", (1,)),
        ("verified", ()),
    ]
    report = verify(watched.evidence(), None, now=NOW)
    [line] = [each.problem for each in report.notices if each.subject == FILE]
    assert re.search(r"4 times, last .*: verified, then failed on 2096-.*, verified on 2096", line)


def test_the_same_outcome_of_a_second_worker_is_no_second_entry(watched: Watched) -> None:
    with watched.store.transaction() as tx:
        tx.add_work(Work.VERIFICATION, RUN, LATER + EVERY, told="verified")
    watched.again(LATER + EVERY + LEASE_S)
    assert len(watched.rows()) == 2


def test_a_bundle_has_the_newest_that_fit(watched: Watched) -> None:
    [_, last] = watched.rows()
    with watched.policy.transaction(watched.store, RUN) as tx:
        for number in range(3, MAX_SHOWN + 4):
            record = replace(last, number=number)
            index = tx.append_outcome(RUN, number, record.encode(), LATER)
            sign_grown(tx, index, record.digest(), watched.policy, LATER)
    evidence = watched.evidence()
    shown = ShownOutcomes.decode(evidence.attachments[FILE])
    assert [item.record.number for item in shown.outcomes] == list(range(4, MAX_SHOWN + 4))
    report = verify(evidence, None, now=NOW)
    [line] = [each.problem for each in report.notices if each.subject == FILE]
    assert f"always verified (of the newest {MAX_SHOWN})" in line
    assert not report.findings


@pytest.mark.parametrize(("late_s", "problem"), [(3 * 3600, None), (3 * 3600 + 60, "3.0 hours")])
def test_an_outcome_is_not_of_a_time_behind_the_block_over_it(
    late_s: float, problem: str | None
) -> None:
    world = World()
    world.ingest(world.batch(story()))
    with world.store.transaction() as tx:
        [*_, after] = tx.entries(RUN)
        block = int(world.now)
        record = outcome_of(world, after.root, block + int(late_s))
        index = tx.append_outcome(RUN, 1, record.encode(), world.now)
        size = sign_grown(tx, index, record.digest(), world.policy, world.now)
        assert size == index + 1
        for network in world.policy.networks:
            tx.add_anchor(network, size, world.now)
        assert unanchored(tx, roll_of(tx, size, NOW, 0.0)) == 1
    world.anchor()
    with world.store.snapshot() as tx:
        assert unanchored(tx, roll_of(tx, size, NOW, 0.0)) == 0
    evidence = world.evidence()
    assert {receipt.ledger.size for receipt in evidence.receipts_of("ethereum")} == {size}
    report = world.verify(evidence)
    theirs = stranger.load().Bundle(bundle_files(evidence)).problems
    assert [line.startswith(f"{FILE}: of a time behind its block") for line in theirs] == (
        [] if problem is None else [True]
    )
    if problem is None:
        assert not report.findings
        [line] = [each.problem for each in report.notices if each.subject == FILE]
        assert "no receipt" not in line
    else:
        [finding] = report.findings
        assert (finding.check, finding.subject) == (6, FILE)
        assert finding.problem.startswith(
            f"outcome 1: is said to be made {problem} after the block"
        )


def outcome_of(world: World, root: bytes, at: int) -> Outcome:
    ledger = world.policy.signer.verifier.vkey
    return Outcome(ledger, RUN, root, 1, "verified", (), {"ethereum": None}, at, "test 1")


def test_outcomes_come_on_chain_once_a_day_at_most(watched: Watched) -> None:
    """The first behind a head of a day ago makes its own due; what comes sooner waits for more."""
    assert watched.sizes() == [1, 2, 3, 4]
    minutely = msgspec.structs.replace(watched.settings, verification=VerificationSettings(60.0))
    often = replace(watched, settings=minutely)
    for minutes in (1, 2, 3):
        often.again(LATER + 2 * EVERY + 60 * minutes)
    assert watched.sizes() == [1, 2, 3, 4, 5]
    watched.anchor(LATER + 3 * EVERY)
    assert watched.states() == ["replaced", "final", "replaced", "final", "final"]
    assert watched.findings() == []
    with closing(sqlite3.connect(watched.settings.base_dir / "ledger.db")) as database:
        assert database.execute("select count(*) from receipts").fetchone() == (2,)


def test_a_network_without_anchors_gets_none_of_outcomes(tmp_path: Path) -> None:
    """Whoever anchors no run pays for none of its outcomes."""
    settings = msgspec.structs.replace(
        deployment(tmp_path / "base", anchor=False), verification=VerificationSettings(EVERY, None)
    )
    with closing(sending.open_store(settings)) as store:
        with store.transaction() as tx:
            tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
            for row in tx.anchors("local"):
                tx.save_anchor(replace(row, state=AnchorState.FAILED))
        own = Watched(settings, store, sending.seal_policy(settings))
        own.again(LATER)
        assert own.states() == ["failed"] * 2


Document = dict[str, Any]


def record(place: int, /, **values: Any) -> Callable[[Document], object]:
    return lambda document: document["outcomes"][place]["record"].update(values)


FORGED: dict[str, tuple[Callable[[Document], object], str]] = {
    "another outcome": (record(1, outcome="consistent"), "verification failed|inclusion"),
    "a failed one without checks": (record(1, outcome="failed"), "record: failed: found a list"),
    "another run": (
        record(0, run="01890a5d-ac96-8fe8-84b0-4bcead339ab1"),
        "outcome 1: is of run 01890a5d-ac96-8fe8-84b0-4bcead339ab1",
    ),
    "another ledger": (
        record(0, ledger="other+00000000+AAAA"),
        "outcome 1: is of the ledger other",
    ),
    "another root": (record(0, root="00" * 32), "outcome 1: root 00.* is of no seal of the run"),
    "another number": (record(1, number=3), "outcome 3: expected number 2"),
    "an earlier time": (record(1, at=1), "inclusion|leads"),
    "another network's height": (record(1, networks={"bitcoin": 9}), "inclusion|leads"),
    "one left out in between": (lambda d: d["outcomes"].reverse(), "outcome 1: expected number 3"),
    "none left": (lambda d: d["outcomes"].clear(), "outcomes: found 0, expected 1 to 400"),
    "another entry": (lambda d: d["outcomes"][1].update(index=2), "comes before|inclusion"),
    "another head": (lambda d: d.update(size=3), "outcomes|size"),
    "a head that is none": (lambda d: d.update(size=9), "its size is 9, expected that of a head"),
    "another key": (lambda d: d.update(more=1), "more: unknown key"),
    "another version": (lambda d: d.update(v=2), "v: found version 2, expected 1"),
    "a version of a record": (record(0, v=2), "record: v: found version 2, expected 1"),
    "a check twice": (record(1, outcome="failed", failed=[1, 1]), "ascending, each once"),
    "an unknown word": (record(1, outcome="fine"), "outcome: found 'fine'"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_outcomes_are_refused_with_one_line(bundle: dict[str, bytes], name: str) -> None:
    change, line = FORGED[name]
    document = json.loads(bundle[FILE])
    change(document)
    evidence = read_bundle(files_source(bundle))
    forged = replace(evidence, attachments={FILE: canonical_json(document)})
    [finding] = verify(forged, None, now=NOW).findings
    assert (finding.check, finding.file) == (6, FILE)
    assert re.search(line, finding.problem), finding.problem
    assert "\n" not in finding.problem
    [problem] = stranger.load().Bundle(bundle_files(forged)).problems
    assert problem.startswith(FILE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    settings = msgspec.structs.replace(
        deployment(tmp_path_factory.mktemp("outcomes") / "base"),
        verification=VerificationSettings(EVERY, None),
    )
    with closing(sending.open_store(settings)) as store:
        with store.transaction() as tx:
            tx.add_work_of_sealed(Work.VERIFICATION, EVERY, LATER)
        own = Watched(settings, store, sending.seal_policy(settings))
        own.again(LATER)
        own.again(LATER + EVERY)
        return bundle_files(own.evidence())


PLANTED = {
    "a record that is gone": "delete from outcomes where entry = 2",
    "a record that was changed": (
        "update outcomes set document = cast(replace(cast(document as text), "
        "'verified', 'anchored')"
        " as blob) where entry = 2"
    ),
    "a run that is another's": "update ledger_entries set epoch = 7 where entry = 2",
}


@pytest.mark.parametrize("statement", PLANTED.values(), ids=PLANTED)
def test_fsck_names_an_outcome_that_is_not_what_its_entry_hashes(
    watched: Watched, statement: str
) -> None:
    with closing(sqlite3.connect(watched.settings.base_dir / "ledger.db")) as database:
        database.execute(statement)
        database.commit()
    assert watched.findings() == [(F.OUTCOME, "entry 2")]


def test_a_restored_ledger_gets_them_back_from_a_bundle(watched: Watched, tmp_path: Path) -> None:
    folder = write_files(bundle_files(watched.evidence()), tmp_path / "bundle", 0o644)
    with watched.store.snapshot() as tx:
        head = tx.head()
    assert head is not None
    empty = msgspec.structs.replace(watched.settings, database_url=f"sqlite:///{tmp_path}/empty.db")
    with closing(sending.open_store(empty)) as store:
        known = parse_note(head.note).head
        done = recover(store, watched.policy, known, [folder], NOW)
        assert (done.size, done.entries, done.runs) == (4, 4, 1)
        with store.snapshot() as tx:
            assert len(tx.outcomes(RUN)) == 2
    assert reading.ledger_key(watched.settings) == watched.policy.signer.verifier
