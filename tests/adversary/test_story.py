"""Stories that are false: a run that says it went otherwise than its records do, or a bundle that
shows it so. Nothing of it reads "verified", or reads as it was meant to.

Over 400 lines: what a run says of its parent, of its processes and of its end, each against its
records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MemorySource
from provenance.bundle.writer import bundle_files
from provenance.evidence.disclosure import withhold
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.verify.report import VerificationReport
from tests.support.model_world import weights
from tests.support.runs import run_of
from tests.support.shard_world import sharded
from tests.support.stranger import load
from tests.support.verify_world import (
    KEY,
    OTHER,
    RUN,
    Fields,
    World,
    before,
    config,
    ending,
    metrics,
    seal,
    training,
)

CHILD = OTHER
THIRD = run_of(0x01890A5E0000, KEY)
LAST = "mth-sha256:3"
"""The weights of the last epoch of `training`."""


def stated(root: str) -> dict[str, Any]:
    """A record of weights that states their root alone, as those of `training` do."""
    return {"algorithm": "blake3", "root": root}


def begun(
    parent: Any = None, weights: Sequence[str] = ("mth-sha256:02",), size: int = 1
) -> list[Fields]:
    """What a run states before training: which run it continues, and its initial weights."""
    first = before(world_size=size)
    kind, epoch, fields = first[4]
    own = [(Kind.WEIGHTS, None, stated(root)) for root in weights]
    return [*first[:3], *own, (kind, epoch, {**fields, "parent": parent}), first[5]]


def ended(events: list[Fields], state: str, reason: str = "x") -> list[Fields]:
    fields = {"events": len(events), "reason": reason, "state": state}
    return [*events, (Kind.RUN_END, None, fields)]


def family(child: list[Fields], *restart: Fields) -> World:
    """A run of three epochs, and one that says it continues it."""
    world = World(("bitcoin",))
    world.ingest(world.batch(ending([*begun(), *training()])))
    world.ingest(world.batch(ending(child), run=CHILD, producer=b"c" * 16))
    if restart:
        own = ended([*restart], "closed")
        world.ingest(world.batch(own, run=CHILD, producer=b"d" * 16, at=100.0))
    world.anchor()
    return world


def parents_line(report: VerificationReport) -> str:
    (line,) = (notice.problem for notice in report.notices if notice.subject == "parent")
    return line


def named(**more: Any) -> dict[str, Any]:
    return {"run": str(RUN), "epoch": None, **more}


def both(world: World) -> VerificationReport:
    """The child held against its parent, which is verified first."""
    return world.verify(world.evidence(CHILD), parent=world.verify())


# --- the parent -----------------------------------------------------------------------------


def test_an_honest_child_is_verified_with_its_parent() -> None:
    world = family([*begun(named(), [LAST]), metrics(1)])
    report = both(world)
    assert (report.outcome, report.findings) == ("verified", ())
    match = f"continues run {RUN} from epoch 3: initial weights match"
    assert parents_line(report) == f"{match}; that run was checked too: verified"
    alone = world.verify(world.evidence(CHILD))
    assert parents_line(alone) == f"{match} (that run was not verified here: --parent)"
    assert (report.lineage and report.lineage.verified) is True
    assert (alone.lineage and alone.lineage.verified) is False


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (THIRD, f"the ledger forked: its entry 2 is a seal of this run and of run {RUN}"),
        (RUN, "the ledger forked: at size 4 its root is "),
    ],
    ids=["entry", "head"],
)
def test_a_ledger_that_has_another_history_for_the_parent_is_a_finding(
    first: UUID, problem: str
) -> None:
    """One key and two ledgers of one size: the proof of the fork is in hand."""
    mine, other = family([*begun(named(), [LAST]), metrics(1)]), World(("bitcoin",))
    events = ending([*begun(), *training()])
    for run in (first, THIRD if first == RUN else RUN):
        other.ingest(other.batch(events, run=run, producer=run.bytes))
    other.anchor()
    parent, evidence = other.verify(), mine.evidence(CHILD)
    (finding,) = mine.verify(evidence, parent=parent).findings
    assert finding.problem.startswith(problem)
    head = evidence.heads[-1]
    root = head.note.splitlines()[2]
    note = head.note.replace(root, root[::-1].replace("=", "A", 1)[:-1] + "=")
    forged = replace(evidence, heads=(*evidence.heads[:-1], replace(head, note=note)))
    told = [finding.problem for finding in mine.verify(forged, parent=parent).findings]
    assert not any("forked" in line for line in told), "nobody signed that head"


def test_a_child_is_no_better_than_its_parent() -> None:
    world = family([*begun(named(), [LAST]), metrics(1)])
    report = world.verify(world.evidence(CHILD), parent=world.verify(online=False))
    assert (report.outcome, report.findings) == ("anchored", ())
    assert any(line.startswith("(10) ") for line in report.verdict.missing)


@pytest.mark.parametrize(
    ("disclosed", "line"),
    [
        ("metrics", f"says that it continues run {RUN}, whose weights are not here"),
        ("model", "its initial weights are of none of its recorded epochs"),
    ],
)
def test_weights_that_the_parent_withholds_leave_the_claim_open(disclosed: str, line: str) -> None:
    world = family([*begun(named(), [LAST]), metrics(1)])
    parent = world.verify(withhold(world.evidence(), [disclosed]))
    report = world.verify(world.evidence(CHILD), parent=parent)
    assert report.findings == ()
    assert report.outcome != "verified"
    assert line in parents_line(report)


def test_a_parent_whose_rows_were_made_to_fit_does_not_hold() -> None:
    """An insider writes the child's weights into the parent's record."""
    world = family([*begun(named(), ["mth-sha256:mine"]), metrics(1)])
    (row,) = (r for r in world.evidence().records if r.path == "training/epoch/3/state/0")
    data = (row.data or b"").replace(b"mth-sha256:3", b"mth-sha256:mine")
    world.sql("UPDATE records SET data=? WHERE digest=?", data, row.digest)
    alone = world.verify(world.evidence(CHILD))
    assert parents_line(alone).endswith("match (that run was not verified here: --parent)")
    problems = [finding.problem for finding in both(world).findings]
    assert problems[0].startswith(f"run {RUN} does not hold: (1) training/epoch/3/state/0: ")


def test_weights_that_the_parent_recorded_under_no_root_are_not_its_own() -> None:
    world = World(("bitcoin",))
    world.ingest(world.batch([*begun(), *training(), seal("checkpoint", 3)]))
    world.ingest(world.batch([(Kind.STATE, 4, stated("mth-sha256:x"))], first=13))
    child = ending([*begun(named(), ["mth-sha256:x"]), metrics(1)])
    world.ingest(world.batch(child, run=CHILD, producer=b"c" * 16))
    world.anchor()
    assert (both(world).outcome, both(world).findings) == ("anchored", ())
    assert "its initial weights are of none of its recorded epochs" in parents_line(both(world))


def test_what_a_restart_restates_is_not_what_the_child_began_with() -> None:
    late = (Kind.WEIGHTS, None, stated(LAST))
    world = family([*begun(named(), ["mth-sha256:other"]), metrics(1)], late, config(), metrics(2))
    assert (both(world).outcome, both(world).findings) == ("anchored", ())
    assert "its initial weights are of none of its recorded epochs" in parents_line(both(world))


@pytest.mark.parametrize(
    ("parent", "weights", "line"),
    [
        (
            {"run": f"{RUN} from epoch 3: initial weights match", "epoch": 3},
            [LAST],
            f"names '{RUN} from epoch 3: initial weigh' as the run that it continues: no run's id",
        ),
        ({"run": str(CHILD)}, [LAST], "names itself as the run that it continues"),
        (named(), ["mth-sha256:02"], f"continues run {RUN} from its weights before training: "),
        (named(), [], f"says that it continues run {RUN}; its initial weights are not"),
        (named(), [LAST, "mth-sha256:x"], f"says that it continues run {RUN}; its initial"),
        (named(), ["mth-sha256:2", LAST], f"says that it continues run {RUN}; its initial"),
        ({"run": str(RUN).upper()}, [LAST], f"continues run {RUN} from epoch 3: initial"),
    ],
)
def test_what_a_child_says_of_its_parent_is_read_as_it_is(
    parent: dict[str, Any], weights: list[str], line: str
) -> None:
    world = family([*begun(parent, weights), metrics(1)])
    assert parents_line(world.verify(world.evidence(CHILD))).startswith(line)


@pytest.mark.parametrize(
    ("epoch", "weights", "line"),
    [
        (1, LAST, "those of epoch 3"),
        (9, LAST, "those of epoch 3"),
        (1, "mth-sha256:x", "of another"),
    ],
)
def test_an_epoch_that_the_child_did_not_begin_from_is_a_finding(
    epoch: int, weights: str, line: str
) -> None:
    world = family([*begun(named(epoch=epoch), [weights]), metrics(1)])
    (finding,) = both(world).findings
    says = f"says that it continues run {RUN} from epoch {epoch}; its initial weights are"
    assert finding.problem.startswith(f"{says} {line}")
    assert world.verify(world.evidence(CHILD)).findings == ()


def test_a_child_that_was_sealed_before_its_parent_is_told() -> None:
    world, parent = World(("bitcoin",)), ending([*begun(), *training(checkpoint=3)])
    world.ingest(world.batch(parent[:6]))
    child = ending([*begun(named(), [LAST]), metrics(1)])
    world.ingest(world.batch(child, run=CHILD, producer=b"c" * 16))
    world.ingest(world.batch(parent[6:], first=6))
    world.anchor()
    report = both(world)
    assert (report.outcome, report.findings) == ("verified", ())
    order, _ = (notice.problem for notice in report.notices if notice.subject == "parent")
    line = "its initial weights were sealed (ledger entry 1) before the weights of epoch 3 of "
    assert order.startswith(f"{line}that run were (entry 3): nothing shows")


def state(step: int, algorithm: str = "blake3") -> dict[str, Any]:
    """Weights of a step: a head, and a base that no step changes."""
    arrays = {"base": np.zeros(2, "f4"), "head": np.full(2, step, "f4")}
    return state_digest(arrays, HashFactory(algorithm)).as_fields()


def trainable(step: int) -> dict[str, Any]:
    """What a tracker set to record trainable parameters states of `state`."""
    fields = state_digest({"head": np.full(2, step, "f4")}).as_fields()
    return {**fields, "covers": {"only": "trainable parameters and buffers"}}


def held_against(
    parent: Sequence[dict[str, Any]], child: dict[str, Any], epoch: int | None = None
) -> VerificationReport:
    """A child with these initial weights, against a parent with these before and by epoch."""
    world = World(("bitcoin",))
    events = begun()
    events[3] = (Kind.WEIGHTS, None, parent[0])
    for at, body in enumerate(parent[1:], 1):
        events += [metrics(at), (Kind.STATE, at, body)]
    world.ingest(world.batch(ending(events)))
    events = begun(named(epoch=epoch))
    events[3] = (Kind.WEIGHTS, None, child)
    world.ingest(world.batch(ending([*events, metrics(1)]), run=CHILD, producer=b"c" * 16))
    world.anchor()
    return both(world)


@pytest.mark.parametrize(
    ("parent", "child", "reason"),
    [
        (state(1), state(1, "sha256"), "their digests are by sha256 and blake3"),
        (
            trainable(1),
            state_digest({"other": np.ones(1)}).as_fields(),
            "records state a part of the model",
        ),
    ],
)
@pytest.mark.parametrize("epoch", [None, 1])
def test_weights_that_cannot_be_compared_leave_the_claim_open(
    parent: dict[str, Any], child: dict[str, Any], reason: str, epoch: int | None
) -> None:
    report = held_against([state(0), parent], child, epoch)
    assert (report.outcome, report.findings) == ("anchored", ())
    assert f"cannot be compared with those of that run: {reason}" in parents_line(report)


def test_shards_of_the_parent_leave_the_claim_of_a_whole_state_open() -> None:
    world = sharded()
    child = begun(named())
    child[3] = (Kind.WEIGHTS, None, state_digest(weights(3)).as_fields())
    world.ingest(world.batch(ending([*child, metrics(1)]), run=CHILD, producer=b"c" * 16))
    world.anchor()
    assert both(world).findings == ()
    assert "with those of that run: ranks share them in another way" in parents_line(both(world))


def test_of_a_parent_that_recorded_what_it_trains_the_rest_is_of_before_training() -> None:
    parent = [state(0), trainable(1), trainable(2)]
    report = held_against(parent, state(2))
    assert (report.outcome, report.findings) == ("verified", ())
    assert "from epoch 2: initial weights match" in parents_line(report)
    report = held_against(parent, state(7))
    assert (report.outcome, report.findings) == ("anchored", ())
    assert parents_line(report).startswith(
        f"says that it continues run {RUN}; its initial weights are of none of its recorded "
        "epochs: 1 of 2 tensors are those before training"
    )


@pytest.mark.parametrize("epoch", [None, 4])
def test_weights_between_two_recorded_epochs_leave_the_claim_open(epoch: int | None) -> None:
    report = held_against([state(0), state(1), state(2)], state(7), epoch)
    assert (report.outcome, report.findings) == ("anchored", ())
    line = "of none of its recorded epochs: 1 of 2 tensors are those of epoch 2"
    assert line in parents_line(report)


def test_a_withheld_configuration_leaves_open_which_run_is_continued() -> None:
    world = family([*begun(named(), [LAST]), metrics(1)])
    child = withhold(world.evidence(CHILD), ["metrics"])
    report = world.verify(child, parent=world.verify())
    assert (report.outcome, report.findings) == ("anchored", ())
    assert any("parent: the configuration is withheld" in line for line in report.verdict.missing)


def test_a_child_that_names_two_parents_matches_none() -> None:
    child = [*begun(named(), [LAST]), metrics(1)]
    kind, epoch, fields = child[4]
    child.insert(4, (kind, epoch, {**fields, "parent": {"run": str(CHILD)}}))
    world = family(child)
    assert "names several runs that it continues" in parents_line(both(world))
    assert both(world).outcome != "verified"


# --- the state ------------------------------------------------------------------------------


def story(*processes: tuple[list[Fields], int]) -> VerificationReport:
    """Of a run that processes of these ranks wrote, one after another."""
    world = World(("bitcoin",))
    world.ingest(
        *(
            world.batch(events, producer=bytes([at + 1]) * 16, rank=rank, at=100.0 * at)
            for at, (events, rank) in enumerate(processes)
        )
    )
    world.sweep(later=1000.0)
    world.anchor()
    return world.verify()


WHOLE = ending([*begun(), *training()])


def test_a_restart_that_failed_is_not_hidden_by_an_end_before_or_behind_it() -> None:
    failed = ended([*begun(), metrics(4)], "failed", "OSError")
    report = story((WHOLE, 0), (failed, 0))
    assert report.state.line == "failed (OSError)"
    again = ended([*begun(), metrics(5)], "closed", "exit")
    told = [n.problem for n in story((WHOLE, 0), (failed, 0), (again, 0)).notices]
    assert any(line.endswith("the process before it: failed (OSError)") for line in told)


def test_a_process_that_failed_beside_the_training_is_named() -> None:
    world = World(("bitcoin",))
    failed = ended([*begun(), metrics(4)], "failed", "OSError")
    world.ingest(
        world.batch(failed, producer=b"q" * 16, at=1.5), world.batch(WHOLE, producer=b"p" * 16)
    )
    world.anchor()
    report = world.verify()
    assert report.state.state == "finished"
    told = [f"{n.subject}: {n.problem}" for n in report.notices]
    assert "rank 0, process 2: ended: failed (OSError)" in told


def test_the_end_of_a_child_is_not_that_of_its_rank() -> None:
    """Rank 1 was killed; what it had forked closed, so that the run is sealed whole."""
    world = World(("bitcoin",))
    child = ended([(Kind.NOTE, None, {"text": "seen", "tags": []})], "closed", "exit")
    world.ingest(
        world.batch([metrics(1)], producer=b"q" * 16, rank=1),
        world.batch(child, producer=b"r" * 16, rank=1, at=5.0),
        world.batch(ending([*begun(size=2), *training()])),
    )
    world.anchor()
    report = world.verify()
    assert (report.evidence.incomplete, report.state.line) == (None, "lost (rank 1)")
    assert report.outcome != "verified"
    assert "(4) nothing announced is missing: the run is lost (rank 1)" in report.verdict.missing[0]


def test_a_state_that_reads_like_a_verdict_is_none() -> None:
    report = story((ended([*begun(), metrics(1)], "verified"), 0))
    assert report.state.line == "unknown ('verified')"


def test_a_rank_that_the_configuration_hides_counts() -> None:
    failed = ended([metrics(1)], "failed", "OSError")
    report = story((failed, 1), (WHOLE, 0))
    assert report.state.line == "failed (rank 1, OSError)"
    told = [f"{n.subject}: {n.problem}" for n in report.notices]
    assert "rank 1: the configuration announces 1" in told


def test_events_that_were_dropped_are_named_while_a_run_goes_on() -> None:
    world = World(("bitcoin",))
    gap: Fields = (Kind.GAP, None, {"dropped": 500, "reason": "disk full"})
    world.ingest(world.batch([*begun(), metrics(1), gap]))
    report = world.verify()
    assert report.state.state == "running"
    assert [f.problem for f in report.findings] == ["500 events were dropped: 'disk full'"]


# --- what no root has ------------------------------------------------------------------------


def test_what_no_root_has_is_not_shown_as_if_one_had() -> None:
    world = World(("bitcoin",))
    world.ingest(world.batch([*begun(), *training(2), seal("checkpoint", 2), metrics(3)]))
    report = world.verify()
    shown = {row["epoch"]: row["sealed"] for row in report.as_dict()["metrics"]}
    assert shown == {1: True, 2: True, 3: False}
    assert any(line.startswith("What no root has yet: 1 record,") for line in report.not_checked)


def test_records_of_a_run_without_a_seal_are_not_filed_into_its_tree() -> None:
    world = World(("bitcoin",))
    world.ingest(world.batch(begun()[:-1]), world.batch([metrics(1)], first=5))
    evidence = world.evidence()
    records = [
        replace(item, path="training/epoch/1/metrics/0") if item.kind is Kind.METRICS else item
        for item in evidence.records
    ]
    files = bundle_files(replace(evidence, records=tuple(records)))
    report = world.verify(read_bundle(MemorySource(files, "forged")), online=False)
    (finding,) = report.findings
    assert (finding.check, finding.path) == (2, "training/epoch/1/metrics/0")
    assert load().Bundle(files).problems == ["run.json: a record lies at another path"]
