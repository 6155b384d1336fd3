"""What seals are made from: an honest database has no finding, whenever it is looked at, and each
column that somebody changed in it has one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.formats.cosignature import Cosignature
from provenance.formats.record import Kind
from provenance.fsck.findings import Finding
from provenance.fsck.findings import FindingKind as F
from provenance.ledger.seal import SealPolicy
from provenance.stores.sql import SqlStore
from tests.support.fsck_world import SIGNER, World
from tests.support.runs import Producer, run_of

RUN = run_of(0x0192F0C1AAAA)
LEADER, OTHER, CHILD = b"\x01" * 16, b"\x02" * 16, b"\x03" * 16
PATIENT = SealPolicy((), SIGNER, 60.0)
EAGER = SealPolicy((), SIGNER, 0.0)
Step = tuple[bytes, SealPolicy]


def two_ranks() -> tuple[Producer, Producer]:
    leader = Producer(run=RUN, name=LEADER, world_size=2)
    leader.begin()
    other = Producer(run=RUN, name=OTHER, rank=1, world_size=2)
    for epoch in (1, 2):
        for each in (leader, other):
            each.epoch(epoch)
            each.seal("checkpoint", epoch)
    leader.finish()
    other.end()
    return leader, other


def singly(*producers: Producer, policy: SealPolicy = PATIENT) -> list[Step]:
    return [(p.batch(at, at + 1), policy) for p in producers for at in range(len(p.events))]


def in_order() -> Iterable[Step]:
    return singly(*two_ranks())


def backwards() -> Iterable[Step]:
    """Each batch above a hole until the first arrives."""
    leader, other = two_ranks()
    return [*singly(other), *reversed(singly(leader))]


def late_records() -> Iterable[Step]:
    """A seal without the leader's first events, which come late and are parked, and a checkpoint
    that a rank's last events come behind."""
    leader, other = two_ranks()
    yield leader.batch(2, 9), EAGER
    yield leader.batch(0, 2), EAGER
    yield other.batch(2, 6), PATIENT
    yield leader.batch(9), PATIENT
    yield other.batch(0, 2), PATIENT
    yield other.batch(6), PATIENT


def restarted() -> Iterable[Step]:
    """A rank of two producers, of which each marks checkpoints, some twice, some going back."""
    leader, other = two_ranks()
    again = Producer(run=RUN, name=CHILD, rank=1, world_size=2)
    for epoch in (2, 1, 2, 3):
        again.epoch(epoch)
        again.seal("checkpoint", epoch, anchor=epoch == 3)
    again.seal("before")
    again.seal("after")
    again.seal("after")
    again.end()
    again.events = [replace(event, ts_ns=event.ts_ns + 10**9) for event in again.events]
    yield from [*singly(leader)[:10], *reversed(singly(again)), *singly(other)]
    yield from singly(leader)[10:]


def abandoned() -> Iterable[Step]:
    """Sealed after a while, with holes and without a rank."""
    leader, _ = two_ranks()
    yield leader.batch(0, 6), PATIENT
    yield leader.batch(8), EAGER


def unread() -> Iterable[Step]:
    """Marks and ends of other forms than this release writes."""
    producer = Producer(run=RUN, name=LEADER)
    producer.begin()
    for phase, epoch in (("before", 1), ("checkpoint", -1), ("checkpoint", 2**53), ("later", 1)):
        producer.add(Kind.SEAL, None, phase=phase, epoch=epoch, anchor=1)
    producer.add(Kind.RUN_END, events="many", reason="?")
    producer.add(Kind.RUN_END, events=-3, reason="?")
    producer.seal("checkpoint", 0)
    producer.epoch(0)
    return singly(producer)


SLOW = pytest.param(restarted, marks=pytest.mark.slow)
HONEST = (in_order, backwards, late_records, SLOW, abandoned, unread)


@pytest.mark.slow
@pytest.mark.parametrize("history", HONEST)
def test_an_honest_database_keeps_what_its_records_give_at_any_moment(
    tmp_path: Path, history: Callable[[], Iterable[Step]]
) -> None:
    world = World(tmp_path)
    world.networks = ()
    made = 0
    for payload, policy in history():
        world.ingest(payload, policy=policy)
        report = world.fsck(offline=True)
        assert [each for each in report.findings if each.kind is F.KEPT_STATE] == []
        made = report.checked["entries"]
    assert made > 0


def test_records_of_a_worker_that_does_not_seal_are_kept_like_others(tmp_path: Path) -> None:
    world = World(tmp_path)
    leader, other = two_ranks()
    world.ingest(leader.batch(0, 12))
    world.insert(other)
    assert world.sql("SELECT epoch FROM due_checkpoints") == [(1,), (2,)]
    assert {each.kind for each in world.fsck(offline=True).findings} == {F.RUN_NOT_SEALED}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "subjects"),
    [
        ("UPDATE epoch_weights SET epoch=3 WHERE epoch=1", ["1/{0}", "3/{0}"]),
        ("UPDATE epoch_weights SET root=zeroblob(32) WHERE epoch=1", ["1/{0}", "1/{2}"]),
        ("DELETE FROM epoch_weights WHERE epoch=2", ["2/{0}", "2/{1}"]),
    ],
)
def test_the_index_of_weights_is_what_state_records_give(
    tmp_path: Path, edit: str, subjects: list[str]
) -> None:
    """Of an epoch with two roots both, of what is no root nothing."""
    world = World(tmp_path)
    world.networks = ()
    leader = Producer(run=RUN, name=LEADER)
    leader.begin()
    roots = ["0a" * 32, "0b" * 32, "00" * 32]
    for epoch, root in ((1, roots[0]), (2, roots[0]), (2, roots[1]), (2, roots[1])):
        leader.add(Kind.STATE, epoch, root=f"mth-sha256:{root}")
    for other in (f"mth-sha256:{'0A' * 32}", f"mth-sha256:{roots[0]}\n", "", None, 1, [roots[0]]):
        leader.add(Kind.STATE, 3, root=other)
    leader.add(Kind.STATE, 3, covers={"root": f"mth-sha256:{roots[2]}"})
    leader.finish()
    world.ingest(leader.batch())
    assert world.fsck(offline=True).findings == ()
    kept = world.sql("SELECT epoch, lower(hex(root)) FROM epoch_weights ORDER BY 1, 2")
    assert kept == [(1, roots[0]), (2, roots[0]), (2, roots[1])]
    world.sql(edit)
    found = {(each.kind, each.subject) for each in world.fsck(offline=True).findings}
    assert found == {
        (F.KEPT_STATE, f"{RUN}/epoch_weights/{subject.format(*roots)}") for subject in subjects
    }


# --- what somebody changed -----------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An open run of two ranks behind its first checkpoint, with the second due and a third half
    marked, and a producer with records above a hole."""
    world = World(tmp_path_factory.mktemp("kept") / "base")
    leader, other = two_ranks()
    world.base.mkdir()
    world.ingest(leader.batch(0, 9), other.batch(0, 3), policy=PATIENT)
    leader.epoch(3)
    leader.seal("checkpoint", 3)
    again = Producer(run=RUN, name=CHILD, rank=1, world_size=2)
    again.epoch(4)
    again.epoch(5)
    again.seal("checkpoint", 5)
    world.insert(leader)
    world.insert(other)
    world.insert(again, 2)
    return world


@pytest.fixture
def world(built: World, tmp_path: Path) -> World:
    copied = built.copied(tmp_path / "base")
    copied.networks = ()
    return copied


def test_the_changed_database_is_one_with_work_left(world: World) -> None:
    assert world.sql("SELECT epoch FROM due_checkpoints") == [(2,)]
    assert world.sql("SELECT closed, length(training) FROM run_trees") == [(1, 45)]
    assert world.sql("SELECT count(*), sum(chain IS NULL) FROM records WHERE seq<5") == [(13, 3)]
    assert world.sql("SELECT phase, epoch, counts FROM marks ORDER BY phase, epoch, producer") == [
        ("after", -1, 0), ("before", -1, 0), ("checkpoint", 1, 1), ("checkpoint", 1, 1),
        ("checkpoint", 2, 1), ("checkpoint", 2, 1), ("checkpoint", 3, 1), ("checkpoint", 5, 0),
    ]  # fmt: skip
    kinds = {each.kind for each in world.fsck(offline=True).findings}
    assert kinds == {F.SEQ_HOLE, F.RUN_NOT_SEALED}


LED = f"producer=X'{LEADER.hex()}'"
CHILDS = f"producer=X'{CHILD.hex()}'"
FIRST = f"phase='checkpoint' AND epoch=1 AND {LED}"
MARK = f"marks/checkpoint/1/{LEADER.hex()}"
STRAY = run_of(0x0192F0C1BBBB)
EDITS = (
    (f"records SET ts='2025' WHERE seq=6 AND {LED}", f"{LEADER.hex()}/6"),
    (f"records SET chain=zeroblob(32) WHERE seq=6 AND {LED}", f"{LEADER.hex()}/6"),
    (f"records SET chain=NULL WHERE seq>6 AND {LED}", f"{LEADER.hex()}/7"),
    (f"records SET chain=zeroblob(32) WHERE seq=3 AND {CHILDS}", f"{CHILD.hex()}/3"),
    (f"producers SET ended=ended+1 WHERE {LED}", f"producers/{LEADER.hex()}"),
    (f"producers SET ended=NULL WHERE {LED}", f"producers/{LEADER.hex()}"),
    (f"producers SET ended=0 WHERE {CHILDS}", f"producers/{CHILD.hex()}"),
    (f"producers SET marked=5 WHERE {CHILDS}", f"producers/{CHILD.hex()}"),
    (f"marks SET seq=7 WHERE {FIRST}", MARK),
    (f"marks SET rank=1 WHERE {FIRST}", MARK),
    (f"marks SET anchor=0 WHERE {FIRST}", MARK),
    (f"marks SET ts='2025' WHERE {FIRST}", MARK),
    (f"marks SET counts=0 WHERE {FIRST}", MARK),
    (f"marks SET counts=1 WHERE epoch=5 AND {CHILDS}", f"marks/checkpoint/5/{CHILD.hex()}"),
    (f"marks SET epoch=7 WHERE {FIRST}", MARK),
    (f"marks SET epoch=7 WHERE {FIRST}", f"marks/checkpoint/7/{LEADER.hex()}"),
    (f"marks SET phase='before', epoch=-1, {CHILDS} WHERE {FIRST}", f"marks/before/{CHILD.hex()}"),
    ("due_checkpoints SET epoch=3", "due_checkpoints/2"),
    ("due_checkpoints SET epoch=3", "due_checkpoints/3"),
    ("due_checkpoints SET epoch=1", "due_checkpoints/1"),
    *(
        (f"run_trees SET {change}", "run_trees")
        for change in (
            f"leader=X'{OTHER.hex()}'", "leader_ts='2025'", "leader_seq=4", "world_size=1",
            "data=zeroblob(32)", "model=data", "closed=2", "training=substr(training, 1, 44)",
            "training=CAST(substr(training, 1, 13) || zeroblob(32) AS BLOB)",
        )
    ),
    ("heads SET cosigned=1 WHERE size=2", "head 2"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("edit", "subject"), EDITS, ids=str)
def test_a_changed_column_is_a_kept_state_that_nothing_gives(
    world: World, edit: str, subject: str
) -> None:
    before = world.fsck(offline=True).findings
    world.sql(f"UPDATE {edit}")
    new = [each for each in world.fsck(offline=True).findings if each not in before]
    assert {each.kind for each in new} == {F.KEPT_STATE}
    whole = subject if subject.startswith("head") else f"{RUN}/{subject}"
    assert whole in [each.subject for each in new]


@pytest.mark.parametrize("run", [STRAY.hex, "x"])
@pytest.mark.parametrize("table", ["marks", "due_checkpoints", "run_trees"])
def test_a_row_of_a_run_that_is_not_there_is_an_orphan(world: World, table: str, run: str) -> None:
    row = world.sql(f"SELECT min(rowid) FROM {table}")[0][0]
    world.sql(f"UPDATE {table} SET run='{run}' WHERE rowid={row}")
    found = [(each.kind, each.subject) for each in world.fsck(offline=True).findings]
    assert (F.ROW_ORPHAN, f"{table} rowid {row}") in found


@pytest.mark.parametrize("table", ["marks", "due_checkpoints", "run_trees"])
def test_deleted_rows_are_missing(world: World, table: str) -> None:
    before = world.fsck(offline=True).findings
    number = world.sql(f"SELECT count(*) FROM {table}")[0][0]
    world.sql(f"DELETE FROM {table}")
    new = [each for each in world.fsck(offline=True).findings if each not in before]
    assert {each.detail for each in new if each.kind is F.KEPT_STATE} == {"is missing"}
    assert len(new) == number


def test_what_is_stored_and_what_the_records_give_is_named(world: World) -> None:
    world.sql(f"UPDATE marks SET seq=7, rank=1 WHERE {FIRST}")
    found = [each for each in world.fsck(offline=True).findings if each.kind is F.KEPT_STATE]
    assert [each.detail for each in found] == [
        "seq is 7, the records give 8; rank is 1, the records give 0"
    ]


def test_a_head_is_cosigned_where_its_note_says_so(world: World) -> None:
    before = world.fsck(offline=True).findings
    store = SqlStore.open(world.url)
    with store.transaction() as tx:
        tx.extend_head_note(2, Cosignature("witness", b"\1" * 4, 7, b"\2" * 64).line())
    store.close()
    assert world.fsck(offline=True).findings == before
    world.sql("UPDATE heads SET cosigned=0")
    assert [each for each in world.fsck(offline=True).findings if each not in before] == [
        Finding(F.KEPT_STATE, "head 2", "heads.cosigned is False, the note gives True")
    ]


@pytest.mark.parametrize(
    ("edit", "subject"),
    [
        ("heads SET cosigned='x' WHERE size=2", "heads row 2"),
        ("marks SET counts=2 WHERE epoch=5", f"marks row 8 of {RUN}"),
        ("due_checkpoints SET epoch=-1", f"due_checkpoints row 1 of {RUN}"),
        ("run_trees SET training='x'", f"run_trees row 1 of {RUN}"),
    ],
)
def test_a_value_of_another_type_is_unreadable(world: World, edit: str, subject: str) -> None:
    world.sql(f"UPDATE {edit}")
    report = world.fsck(offline=True)
    assert subject in [each.subject for each in report.findings if each.kind is F.ROW_UNREADABLE]
