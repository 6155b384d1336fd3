"""How a run ends, is started again and continued: real processes, and what the ledger makes of it.

The processes of one table run side by side.

Over 400 lines: a deployment in this process, the scripts that end, and a row for each end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from provenance.app.fsck import fsck
from provenance.app.verify import verify_run
from provenance.bootstrap import sending
from provenance.capture import ending
from provenance.capture.keys import new_run_keys
from provenance.capture.ship.loop import Shipper
from provenance.capture.spool import scan
from provenance.cli import main
from provenance.errors import ConfigError, InputError, UnknownRunError
from provenance.formats.record import Kind
from provenance.ledger.ingest import drain, seal_due
from provenance.ledger.seal import seal_ready
from provenance.settings import load
from provenance.stores.memory_transport import MemoryTransport
from provenance.tracker import ProvenanceTracker
from provenance.verify.report import VerificationReport
from tests.support.frameworks import framework, installed
from tests.support.spooled import spooled

pytestmark = pytest.mark.slow
DATA = np.arange(6.0)
MODEL = {"w": np.zeros(3, np.float32)}


class Home:
    """A deployment's workers in this process, with a stream that is not there between calls."""

    def __init__(self, base: Path, **config: Any) -> None:
        self.base, self.settings = base, load(config, base)
        self.store = sending.open_store(self.settings)
        self.policy = sending.seal_policy(self.settings)
        self.transport = MemoryTransport()

    def bring(self, later: float = 0.0) -> None:
        """Ship all, ingest it, and sweep ``later`` seconds from now."""
        known = [self.policy.signer.verifier.public_bytes]
        for _ in range(2):
            with Shipper(self.base / "spool", self.transport, ledger_keys=lambda: known) as shipper:
                shipper.run_once()
            drain(self.transport, self.store, self.policy, uuid4().hex, time.time)
        now = time.time() + later
        with self.store.snapshot() as tx:
            waiting = tx.awaiting_seal(now - self.policy.lost_after_s)
        for run in waiting:
            with self.store.transaction(run) as tx:
                seal_ready(tx, run, self.policy, now)
            seal_due(self.store, run, self.policy, lambda: now)

    def verify(self, run: str = "latest") -> VerificationReport:
        return verify_run(self.settings, run, offline=True)

    def seals(self, run: str) -> list[tuple[str, int | None]]:
        with self.store.snapshot() as tx:
            return [(entry.phase.value, entry.epoch) for entry in tx.entries(UUID(run))]

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def notes(report: VerificationReport) -> list[str]:
    return [f"{notice.subject}: {notice.problem}" for notice in report.notices]


PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from provenance import ProvenanceTracker
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a shell's background job ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup does
def begun(base=sys.argv[1], **more):
    tracker = ProvenanceTracker(base, **more)
    tracker.track_data(np.arange(6.0))
    tracker.track_model({"w": np.zeros(3, np.float32)})
    tracker.store_merkle_on_blockchain_before_training({"epochs": 4})
    tracker.track_epoch(1, {"loss": 1.0}, model={"w": np.ones(3, np.float32)})
    return tracker
def wait():
    print("ready", flush=True)
    for _ in range(6000):
        time.sleep(0.05)
"""
TAKEN = """
def mine(number, frame):
    print("mine", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, mine)
tracker = begun()
wait()
"""
CHAINED = """
tracker = begun()
before = signal.getsignal(signal.SIGTERM)
def composed(number, frame):
    before(number, frame)
    sys.exit(0)
signal.signal(signal.SIGTERM, composed)
wait()
"""
ENDS = {
    # name: (script, signal, exit status, state, reason)
    "an exception": (
        "t = begun()\nraise RuntimeError('secret')", None, 1, "failed",
        "RuntimeError",
    ),
    "an exception, and weights that are hashed while it is printed": (
        "sys.excepthook = lambda *_: t._snapshots.drain()\n"
        "t = begun(); t._snapshots.drain()\n"
        "t.track_epoch(1, {}, model={'w': np.zeros(5_000_000, np.float32)})\n"
        "1 / 0",
        None, 1, "failed", "ZeroDivisionError",
    ),
    "sys.exit": ("t = begun(); sys.exit(3)", None, 3, "failed", "SystemExit: 3"),
    "sys.exit with a text": ("t = begun(); sys.exit('secret')", None, 1, "failed", "SystemExit: 1"),
    "sys.exit(0)": ("t = begun(); sys.exit(0)", None, 0, "closed", "exit"),
    "the end of the script": ("t = begun()", None, 0, "closed", "exit"),
    "the end of a function": (
        "def train(): t = begun()\ntrain(); time.sleep(0)", None, 0, "closed", "released",
    ),
    "sys.exit in a function": (
        "def train():\n t = begun()\n sys.exit(3)\ntrain()", None, 3, "failed", "SystemExit: 3",
    ),
    "an exception in a function": (
        "def train():\n t = begun()\n 1 / 0\ntrain()", None, 1, "failed", "ZeroDivisionError",
    ),
    "a sys.exit that is caught": (
        "t = begun()\ntry: sys.exit(3)\nexcept SystemExit: t.track_epoch(2, {})",
        None, 0, "closed", "exit",
    ),
    "with, clean": ("with begun() as t: pass", None, 0, "finished", "finished"),
    "with, an exception": ("with begun() as t: 1 / 0", None, 1, "failed", "ZeroDivisionError"),
    "with, sys.exit": ("with begun() as t: sys.exit(4)", None, 4, "failed", "SystemExit: 4"),
    "with, a key": (
        "with begun() as t: raise KeyboardInterrupt", None, -2, "interrupted", "SIGINT",
    ),
    "pruned": ("begun().close('pruned', 'pruned')", None, 0, "pruned", "pruned"),
    "SIGTERM": ("t = begun(); wait()", signal.SIGTERM, -15, "interrupted", "SIGTERM"),
    "SIGINT": ("t = begun(); wait()", signal.SIGINT, -2, "interrupted", "SIGINT"),
    "SIGHUP": ("t = begun(); wait()", signal.SIGHUP, -1, "interrupted", "SIGHUP"),
    "SIGTERM that the training takes": (TAKEN, signal.SIGTERM, 0, "closed", "exit"),
    "SIGTERM that a later handler passes on": (
        CHAINED, signal.SIGTERM, 0, "interrupted", "SIGTERM",
    ),
    "SIGTERM, switched off": (
        "t = begun(config={'signal_handlers': False}); wait()", signal.SIGTERM, -15, None, None,
    ),
    "SIGKILL": ("t = begun(); wait()", signal.SIGKILL, -9, None, None),
}  # fmt: skip


UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
"""Coverage handles SIGTERM itself, where these scripts are to have its default action."""


def start(script: str, base: Path, **environment: str) -> subprocess.Popen[str]:
    code = PRELUDE + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(base)],
        env={**UNMEASURED, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int, str]]:
    """Each way to end: base directory, exit status, stderr."""
    top = tmp_path_factory.mktemp("ends")
    running = {}
    for number, (name, row) in enumerate(ENDS.items()):
        running[name] = start(row[0], top / str(number))
    found = {}
    for number, (name, process) in enumerate(running.items()):
        if (sent := ENDS[name][1]) is not None:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(sent)
        _, said = process.communicate(timeout=120)
        found[name] = (top / str(number), process.returncode, said)
    return found


@pytest.mark.parametrize("name", ENDS)
def test_a_run_says_how_it_ended_and_what_it_has_is_sealed(
    name: str, ended: dict[str, tuple[Path, int, str]]
) -> None:
    base, status, said = ended[name]
    _, _, expected, state, reason = ENDS[name]
    assert status == expected, said
    run = scan(base / "spool")[0].run
    ends = [event.fields for event in spooled(base) if event.kind is Kind.RUN_END]
    home = Home(base)
    try:
        home.bring()
        report = home.verify()
        if state is None:
            assert not ends
            assert home.seals(str(run)) == [("before", None)]
            assert report.state.state == "running"
            home.bring(later=6 * 3600)
            assert home.seals(str(run)) == [("before", None), ("checkpoint", 1)]
            assert home.verify().state.state == "lost"
            return
        assert [(end["state"], end["reason"]) for end in ends] == [(state, reason)]
        assert report.state.state == state
        last = (
            ("after", None)
            if state in ("finished", "pruned")
            else ("checkpoint", 1 + said.count("!"))
        )
        if name == "a sys.exit that is caught":
            last = ("checkpoint", 2)
        assert home.seals(str(run)) == [("before", None), last]
        assert report.findings == ()
        assert (
            next(check.status.value for check in report.checks if check.check.number == 4)
            == "passed"
        )
        assert "secret" not in str(report.as_dict())
        assert report.as_dict()["ending"]["state"] == state
    finally:
        home.close()


TRAINER = """
import os, signal, sys
import numpy as np
from provenance import ProvenanceTracker
first, last, again, how = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
tracker = ProvenanceTracker(sys.argv[1])
weights = {"w": np.full(3, first - 1, np.float32)}
if again != "epochs":
    tracker.track_data(np.arange(6.0) + (again == "other data"))
    tracker.track_model(weights if again == "restored" else {"w": np.zeros(3, np.float32)})
    rate = 0.1 if again != "other rate" else 0.2
    tracker.store_merkle_on_blockchain_before_training({"epochs": 4, "rate": rate})
for epoch in range(first, last + 1):
    weights["w"] += 1
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=weights)
tracker._snapshots.drain()
if how != "end":
    os.kill(os.getpid(), getattr(signal, how))
    signal.pause()
tracker.store_merkle_on_blockchain_after_training({})
"""


def train(base: Path, keys: Any, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
    own = {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(base), *map(str, arguments)],
        env={**UNMEASURED, **own, **environment},
        stderr=subprocess.DEVNULL,
    )


AGAIN = {
    # what the second process states: (how the first died, its line in the verification)
    "all": ("SIGKILL", "states the same again; the process before it ended unannounced"),
    "epochs": ("SIGKILL", "states the same again; the process before it ended unannounced"),
    "restored": (
        "SIGTERM",
        "states as initial weights those of epoch 2",
    ),
    "other data": ("SIGTERM", "states another training data"),
    "other rate": ("SIGTERM", "states another configuration (rate)"),
}


@pytest.mark.parametrize("sealed", [False, True], ids=["workers down", "workers up"])
@pytest.mark.parametrize("again", AGAIN)
def test_an_honest_restart_is_one_run_whenever_the_workers_come(
    tmp_path: Path, again: str, sealed: bool
) -> None:
    keys, home = new_run_keys(), Home(tmp_path)
    died, line = AGAIN[again]
    train(tmp_path, keys, 1, 4, "all", died).wait(60)
    if sealed:
        home.bring()
    assert train(tmp_path, keys, 3, 6, again, "end").wait(60) == 0
    home.bring()
    report = home.verify()
    home.close()
    assert report.findings == ()
    assert (report.state.state, report.evidence.state) == ("finished", "sealed")
    told = f"was started again at epoch 3; epochs 3 and 4 were tracked twice; {line}"
    if died == "SIGTERM":
        told += "; the process before it: interrupted (SIGTERM)"
    found = notes(report)
    assert found[0] == f"rank 0, process 2: {told}"
    differing = [note for note in found[1:] if again.startswith("other")]
    assert found[1:] == differing
    assert [note.startswith("late/") for note in differing] == [True] * again.startswith("other")
    assert not report.evidence.parked
    assert {row.epoch for row in report.metrics} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("sealed", [False, True], ids=["workers down", "workers up"])
def test_two_ranks_that_a_launcher_starts_again_are_one_run(tmp_path: Path, sealed: bool) -> None:
    """One dies, the launcher ends the other by SIGTERM, and starts both."""
    keys, home = new_run_keys(), Home(tmp_path)
    ranks = [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in range(2)]
    first = [
        train(tmp_path, keys, 1, 2, "all", how, **own)
        for how, own in zip(("SIGTERM", "SIGKILL"), ranks, strict=True)
    ]
    assert [process.wait(60) for process in first] == [-15, -9]
    if sealed:
        home.bring()
    leader = train(tmp_path, keys, 2, 3, "all", "end", **ranks[0])
    assert leader.wait(60) == 0
    home.bring()
    assert home.verify().state == ("running", None, 1), "rank 1 may come again"
    assert train(tmp_path, keys, 2, 3, "all", "end", **ranks[1]).wait(60) == 0
    home.bring()
    report = home.verify()
    home.close()
    assert report.findings == ()
    assert (report.state.state, report.evidence.state) == ("finished", "sealed")
    assert [notice.subject for notice in report.notices] == [
        "rank 0, process 2",
        "rank 1, process 2",
    ]


def test_a_run_goes_on_by_resume_and_refuses_what_it_has_no_key_of(
    tmp_path: Path, home: Home
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1})
    tracker.close()
    home.bring()
    again = ProvenanceTracker.resume(tracker.run_id, tmp_path)
    again.track_epoch(2, {"loss": 1})
    again.close()
    home.bring()
    third = ProvenanceTracker.resume(tmp_path / "spool" / tracker.run_id)
    third.track_epoch(3, {"loss": 1})
    third.store_merkle_on_blockchain_after_training({})
    assert tracker.run_id == again.run_id == third.run_id
    home.bring()
    report = home.verify()
    assert report.findings == ()
    assert [row.epoch for row in report.metrics] == [1, 2, 3]
    assert report.state.state == "finished"
    with pytest.raises(ConfigError, match=f'continues it with parent="{tracker.run_id}"'):
        ProvenanceTracker.resume(tracker.run_id, tmp_path)
    with pytest.raises(ConfigError, match="expected a run id or the folder of a run"):
        ProvenanceTracker.resume("runs/last", tmp_path)


LOOSE = """
t = ProvenanceTracker(sys.argv[1])
t.track_step(0, {"loss": 1})
t.artifact(b"made", "a.bin")
t.note("odd")
"""


@pytest.mark.parametrize("state", ["failed", "lost"])
def test_a_run_that_stopped_without_an_epoch_is_sealed_with_what_it_has(
    tmp_path: Path, home: Home, state: str
) -> None:
    last = "1 / 0" if state == "failed" else "os._exit(1)"
    assert start(LOOSE + last, tmp_path).wait(60) == 1
    home.bring()
    if state == "lost":
        assert home.seals(str(scan(tmp_path / "spool")[0].run)) == [("before", None)]
        home.bring(later=6 * 3600)
    run = str(scan(tmp_path / "spool")[0].run)
    assert home.seals(run) == [("before", None), ("checkpoint", 0)]
    report = home.verify()
    assert (report.state.state, report.findings) == (state, ())
    kinds = {Kind.STEPS, Kind.ARTIFACT, Kind.NOTE}
    free = [item.record for item in report.evidence.digested if item.record.kind in kinds]
    (covered,) = dict(report.evidence.entries[-1].coverage).values()
    assert len(free) == 3
    assert max(record.seq for record in free) < covered
    home.bring(later=7 * 3600)
    assert len(home.seals(run)) == 2, "once"
    assert not list(fsck(home.settings, offline=True).findings)
    again = ProvenanceTracker.resume(run, tmp_path)
    again.track_step(1, {"loss": 1})
    again.track_epoch(1, {"loss": 1})
    again.store_merkle_on_blockchain_after_training({})
    home.bring()
    report = home.verify()
    assert (report.state.state, report.findings) == ("finished", ())


def test_a_spool_that_is_deleted_under_a_training_comes_home_whole(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1})
    shutil.rmtree(tmp_path / "spool")
    tracker.track_epoch(2, {"loss": 1})
    tracker.store_merkle_on_blockchain_after_training({})
    assert "the spool was deleted while the run goes on" in capsys.readouterr().err
    home.bring()
    report = home.verify()
    assert (report.state.state, report.findings) == ("finished", ())
    assert [row.epoch for row in report.metrics] == [1, 2]


def test_a_run_says_which_run_it_continues_and_whether_that_fits(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(parent: Any, start: int, last: int) -> ProvenanceTracker:
        tracker = ProvenanceTracker(tmp_path, parent=parent)
        tracker.track_model({"w": np.full(3, start, np.float32)})
        for epoch in range(1, last + 1):
            tracker.track_epoch(epoch, {}, model={"w": np.full(3, start + epoch, np.float32)})
        tracker.store_merkle_on_blockchain_after_training({})
        return tracker

    parent = run(None, 0, 5)
    (config,) = (event.fields for event in spooled(tmp_path) if event.kind is Kind.CONFIG)
    assert config["parent"] is None
    child, other = run(parent, 5, 1), run(parent.run_id, 77, 1)
    unknown = str(new_run_keys().run)
    orphan = run(unknown, 5, 1)
    home.bring()
    bundle = tmp_path / "parent.zip"
    own = ["--base-dir", str(tmp_path)]
    assert main(["bundle", parent.run_id, "-o", str(bundle), *own]) == 0
    for tracker, line, epoch, problem in (
        (child, f"continues run {parent.run_id} from epoch 5: initial weights match", 5, None),
        (
            other,
            f"says that it continues run {parent.run_id}; its initial weights are of none of its "
            "recorded epochs",
            None,
            None,
        ),
        (
            orphan,
            f"says that it continues run {unknown}, which is not known here",
            None,
            f"names '{unknown}' as the run that it continues; the run that was given is "
            f"{parent.run_id}",
        ),
        (parent, None, None, "names no run as the run that it continues"),
    ):
        report = home.verify(tracker.run_id)
        assert report.findings == ()
        found = [note.removeprefix("parent: ") for note in notes(report) if "continues" in note]
        unverified = "" if tracker is orphan else " (that run was not verified here: --parent)"
        assert found == ([] if line is None else [line + unverified])
        if report.lineage is not None:
            assert report.as_dict()["parent"]["epoch"] == epoch
            assert not report.lineage.verified
        capsys.readouterr()
        for given in (str(bundle), parent.run_id):
            code = main(["verify", tracker.run_id, "--offline", *own, "--parent", given])
            shown = capsys.readouterr().out
            assert code == (3 if problem is None else 1)
            if problem is None:
                assert f"NOTE (10) parent: {line}; that run was checked too: consistent" in shown
            else:
                assert "FOUND (10) parent: " in shown
                assert problem in shown
    assert main(["verify", "--all", "--parent", child.run_id, *own]) == 2
    wrong: Any
    for wrong in ("last", 7, object()):
        with pytest.raises(InputError, match="parent: found .*, expected a run id or a tracker"):
            ProvenanceTracker(tmp_path, parent=wrong)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_weights_that_an_end_keeps_from_being_read_are_a_gap(
    tmp_path: Path, home: Home, number: signal.Signals
) -> None:
    np.savez(tmp_path / "w.npz", w=np.ones(3))
    script = f"""
        import subprocess
        t = begun()
        subprocess.run = lambda *arguments, **options: wait()
        t.track_epoch(2, {{}}, model={str(tmp_path / "w.npz")!r})
    """
    process = start(script, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    (gap,) = (event for event in spooled(tmp_path) if event.kind is Kind.GAP)
    assert (gap.epoch, gap.fields["what"]) == (2, "weights")
    assert "not read before " in gap.fields["reason"]
    home.bring()
    (check,) = (result for result in home.verify().checks if result.check.number == 4)
    assert "weights were not recorded: epoch 2" in check.detail


def test_a_merged_adapter_is_found_and_says_which_run_trained_it(
    tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    peft, torch = framework("peft", "integrations"), framework("torch")
    base = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["0"], r=2))
    trained = ProvenanceTracker(tmp_path)
    trained.track_model(model)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data += 1
    trained.track_epoch(1, {}, model=model)
    trained.store_merkle_on_blockchain_after_training({})
    merged = model.merge_and_unload()
    torch.save(merged.state_dict(), tmp_path / "merged.pt")
    child = ProvenanceTracker(tmp_path, parent=trained)
    child.track_model(merged)
    child.store_merkle_on_blockchain_after_training({})
    home.bring()
    own = ["--base-dir", str(tmp_path)]
    assert main(["verify-model", str(tmp_path / "merged.pt"), "--run", child.run_id, *own]) == 0
    line = f"  parent     says that it continues run {trained.run_id}; its initial weights are of "
    assert f"{line}none of its recorded epochs (" in capsys.readouterr().out
    assert main(["verify", child.run_id, "--offline", *own, "--parent", trained.run_id]) == 3
    assert "FOUND" not in capsys.readouterr().out


def test_before_and_after_sealed_together_prove_nothing_about_before(
    tmp_path: Path, home: Home
) -> None:
    def run(between: bool) -> VerificationReport:
        tracker = ProvenanceTracker(tmp_path)
        tracker.store_merkle_on_blockchain_before_training({})
        if between:
            home.bring()
        tracker.track_epoch(1, {})
        tracker.store_merkle_on_blockchain_after_training({})
        home.bring()
        return home.verify(tracker.run_id)

    line = (
        "That before was sealed before training: it was sealed together with after, so it proves "
        "nothing about that time."
    )
    assert line in run(between=False).not_checked
    assert line not in run(between=True).not_checked


def test_cells_that_are_run_again_record_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    for _ in range(2):
        tracker.track_data(DATA)
        tracker.track_model(MODEL)
        tracker.store_merkle_on_blockchain_before_training({"epochs": 1})
    with pytest.raises(InputError, match="sealed already, with other content"):
        tracker.store_merkle_on_blockchain_before_training({"epochs": 2})
    with pytest.raises(InputError, match="sealed already, with other content"):
        tracker.track_data(DATA + 1)
    tracker.track_epoch(1, {})
    tracker.track_data(DATA)
    with pytest.raises(InputError, match="sealed already, with other content"):
        tracker.track_data(DATA + 1)
    tracker.store_merkle_on_blockchain_after_training({})
    with pytest.raises(InputError, match="is finished already and takes no more"):
        tracker.store_merkle_on_blockchain_after_training({})
    assert [event.kind.value for event in spooled(tmp_path)] == [
        "data.train", "model.architecture", "model.weights", "config", "run.seal", "metrics",
        "results", "run.seal", "run.end",
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert said == f"provenance: run {tracker.run_id} in {tmp_path}\n"
    assert repr(tracker) == (f"<ProvenanceTracker run={tracker.run_id} rank=0/1 state=finished>")
    ProvenanceTracker(tmp_path, {"announce_run": False})
    assert capsys.readouterr().err == ""


def test_no_thread_and_no_handler_stays_behind_a_closed_tracker(tmp_path: Path) -> None:
    ending._open.clear()  # those of other tests
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threads = threading.active_count()
    for _ in range(5):
        tracker = ProvenanceTracker(tmp_path)
        tracker.track_epoch(1, {}, model=MODEL)
        tracker.store_merkle_on_blockchain_after_training({})
        tracker._snapshots._thread.join(10)  # type: ignore[union-attr]  # it hashed
    assert threading.active_count() == threads
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_relative_folder_is_that_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.json").write_text('{"database_url": "sqlite:///my.db"}')
    tracker = ProvenanceTracker("artifacts", "settings.json")
    tracker.track_epoch(0, {"loss": 1.0})
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path / "outputs")
    metrics = {f"class {i}": float(i) for i in range(400)}
    for epoch in range(1, 1400):
        tracker.track_epoch(epoch, metrics)
    tracker.store_merkle_on_blockchain_after_training({})
    found = [event.kind for event in spooled(tmp_path / "artifacts")]
    assert (found.count(Kind.METRICS), found[-1]) == (1400, Kind.RUN_END)
    with pytest.raises(UnknownRunError, match=f"no database yet at {tmp_path}/my.db"):
        tracker.verify_blockchain_provenance()
    assert not list((tmp_path / "outputs").iterdir())


HYDRA = """
import hydra, numpy as np, provenance

@hydra.main(version_base=None, config_path=None, config_name="config")
def train(config):
    tracker = provenance.ProvenanceTracker("artifacts")
    tracker.store_merkle_on_blockchain_before_training(config)
    for epoch in range(3):
        tracker.track_epoch(epoch, {"loss": 1.0}, {"w": np.full(4, epoch)})
    kept.append(tracker)  # open as its job ends and Hydra goes back

hydra.core.config_store.ConfigStore.instance().store("config", {"lr": 0.0})
kept = []
train()
"""


@pytest.mark.parametrize(
    ("arguments", "rates"), [(["lr=0.1"], [0.1]), (["-m", "lr=0.1,0.2"], [0.1, 0.2])]
)
def test_hydra_that_changes_the_folder_loses_nothing(
    tmp_path: Path, arguments: list[str], rates: list[float]
) -> None:
    installed("hydra", "integrations")
    (tmp_path / "train.py").write_text(HYDRA)
    own = ["hydra.job.chdir=True", "hydra.run.dir=jobs/0", "hydra.sweep.dir=jobs"]
    command = [sys.executable, "train.py", *arguments, *own]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    bases = sorted(tmp_path.rglob("artifacts"))
    assert bases == [tmp_path / f"jobs/{job}/artifacts" for job in range(len(rates))]
    for base, rate in zip(bases, rates, strict=True):
        assert len(list(scan(base / "spool"))) == 1, "one run"
        events = spooled(base)
        (config,) = (event.fields for event in events if event.kind is Kind.CONFIG)
        assert config["training"] == {"lr": rate}
        for kind in (Kind.METRICS, Kind.STATE):
            assert {event.epoch for event in events if event.kind is kind} == {0, 1, 2}
        assert events[-1].kind is Kind.RUN_END
        assert Kind.GAP not in {event.kind for event in events}


def test_weights_that_cannot_be_hashed_are_said_in_the_verdict(tmp_path: Path, home: Home) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_epoch(1, {"loss": 1}, model={"w": "no tensor"})
    tracker.store_merkle_on_blockchain_after_training({})
    counts = tracker.get_blockchain_status()["events"]
    assert counts["errors"] == 1
    assert "tensor 'w'" in counts["last_error"]
    home.bring()
    report = home.verify()
    assert (report.findings, report.outcome) == ((), "consistent")
    assert report.verdict.missing[0] == (
        "(4) nothing announced is missing: weights were not recorded: epoch 1"
    )
