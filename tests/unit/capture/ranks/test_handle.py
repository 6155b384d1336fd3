"""A tracker that is copied, pickled, or used by another process."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import provenance
from provenance.capture.keys import load_run_keys
from provenance.capture.spool import scan
from provenance.errors import InputError
from provenance.formats.record import Kind
from provenance.tracker import ProvenanceTracker
from tests.support.frameworks import framework
from tests.support.home import brought_home
from tests.support.spooled import spooled

WEIGHTS = {"w": np.ones(4, np.float32)}


def write_epoch(tracker: ProvenanceTracker, epoch: int) -> str:
    tracker.track_epoch(epoch, {"loss": 1 / epoch}, model=WEIGHTS)
    return f"{tracker.run_id} {tracker.rank} {os.getpid()}"


def whole_training(tracker: ProvenanceTracker) -> None:
    tracker.track_data(np.ones((4, 2)))
    tracker.track_model(WEIGHTS)
    tracker.store_merkle_on_blockchain_before_training({"epochs": 1})
    write_epoch(tracker, 1)
    tracker.store_merkle_on_blockchain_after_training({"loss": 1.0})


def test_a_copy_is_the_tracker_and_a_pickle_in_its_process_shares_its_producer(
    tmp_path: Path,
) -> None:
    tracker = ProvenanceTracker(tmp_path)
    assert copy.deepcopy({"callbacks": [tracker]})["callbacks"][0] is tracker
    assert copy.copy(tracker) is tracker
    handle = pickle.loads(pickle.dumps(tracker))
    assert handle is not tracker
    handle.track_epoch(1, {"loss": 1.0})
    assert handle.run_id == tracker.run_id
    assert handle.get_blockchain_status()["events"] == tracker.get_blockchain_status()["events"]
    tracker.close()
    assert handle.get_blockchain_status()["finished"]
    (spool,) = scan(tmp_path / "spool")
    assert len(spool.producers) == 1


@pytest.mark.slow
def test_a_pickle_holds_no_key_and_no_password(tmp_path: Path) -> None:
    config = {
        "redis_url": "redis://:hunter2@127.0.0.1:1/0",
        "learning_rate": 0.1,
        "blockchain": {
            "networks": ["bitcoin", "local"],
            "bitcoin": {"rpc_url": "http://127.0.0.1:1/hunter2", "rpc_password": "hunter2"},
        },
    }
    tracker = ProvenanceTracker(tmp_path, config)
    data = pickle.dumps(tracker)
    keys = load_run_keys(tmp_path / "spool" / tracker.run_id)
    for secret in (b"hunter2", keys.seed, keys.seed.hex().encode(), keys.salt):
        assert secret not in data
    script = "import pickle, sys; t = pickle.load(sys.stdin.buffer); print(t.settings.training)"
    done = subprocess.run(
        [sys.executable, "-c", script + "; print(t.settings.blockchain.networks)"],
        input=data, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().split("\n")[:2] == [
        "{'learning_rate': 0.1}",
        "('bitcoin', 'local')",
    ]


@pytest.mark.slow
def test_a_spawned_pool_writes_epochs_of_one_run(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    tracker.track_data(np.ones((4, 2)))
    tracker.track_model(WEIGHTS)
    tracker.store_merkle_on_blockchain_before_training({"epochs": 4})
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        said = [pool.submit(write_epoch, tracker, epoch).result(60) for epoch in (1, 2, 3, 4)]
    assert {tuple(line.split(" ")[:2]) for line in said} == {(tracker.run_id, "0")}
    assert str(os.getpid()) not in {line.split(" ")[2] for line in said}
    tracker.store_merkle_on_blockchain_after_training({"loss": 0.25})
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings
    assert [row.epoch for row in report.metrics] == [1, 2, 3, 4]
    assert not report.notices
    states = [record for record in report.evidence.records if record.kind.value == "state"]
    assert len(states) == 4


@pytest.mark.slow
def test_two_processes_that_were_handed_a_tracker_begin_its_run_once(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(write_epoch, [tracker, tracker], [1, 2]))
    tracker.store_merkle_on_blockchain_after_training({})
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings
    kinds = [record.kind.value for record in report.evidence.records]
    assert kinds.count("config") == 1


@pytest.mark.slow
def test_a_process_of_its_own_writes_the_whole_run(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=whole_training, args=(tracker,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    tracker.close()
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings


@pytest.mark.slow
def test_cloudpickle_and_joblib_carry_a_tracker(tmp_path: Path) -> None:
    cloudpickle = framework("cloudpickle", "mlflow")
    joblib = framework("joblib", "sklearn")
    tracker = ProvenanceTracker(tmp_path)
    tracker.store_merkle_on_blockchain_before_training({})
    assert cloudpickle.loads(cloudpickle.dumps(lambda: tracker.run_id))() == tracker.run_id
    joblib.Parallel(2)(joblib.delayed(write_epoch)(tracker, epoch) for epoch in (1, 2, 3))
    tracker.store_merkle_on_blockchain_after_training({})
    report = brought_home(tmp_path)[tracker.run]
    assert report.outcome == "verified", report.findings
    assert sorted(row.epoch for row in report.metrics) == [1, 2, 3]


@pytest.mark.slow
def test_threads_share_a_handle(tmp_path: Path) -> None:
    tracker = ProvenanceTracker(tmp_path)
    data = pickle.dumps(tracker)
    epochs = list(range(1, 21))
    threads = [
        threading.Thread(target=lambda n=n: write_epoch(pickle.loads(data), n)) for n in epochs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.close()
    (spool,) = scan(tmp_path / "spool")
    assert len(spool.producers) == 1
    assert tracker.get_blockchain_status()["events"]["errors"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("call", ["track_epoch", "track_step", "log"])
def test_a_run_begins_once_whichever_thread_comes_first(tmp_path: Path, call: str) -> None:
    run = provenance.run(base_dir=tmp_path, config={"rate": 1})
    barrier = threading.Barrier(8)
    state = getattr(run, call, None) or getattr(run.tracker, call)

    def write(n: int) -> None:
        barrier.wait()
        state({"loss": n}) if call == "log" else state(n, {"loss": n})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.tracker.close()
    found = Counter(event.kind for event in spooled(tmp_path))
    assert (found[Kind.CONFIG], found[Kind.METRICS] + found[Kind.STEPS]) == (1, 8)
    assert found[Kind.SEAL] == 2, "before, and what it has"


@pytest.mark.slow
def test_what_holds_a_handle_is_read_anywhere_and_its_use_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    script = textwrap.dedent("""
        import pickle, sys
        from provenance import ProvenanceTracker
        tracker = ProvenanceTracker(sys.argv[1])
        sys.stdout.buffer.write(pickle.dumps({"model": 1, "tracker": tracker}))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "there")], capture_output=True, check=True
    )
    (run,) = scan(tmp_path / "there" / "spool")
    (run.path / "run.key").unlink()
    checkpoint = pickle.loads(done.stdout)
    assert checkpoint["model"] == 1
    assert copy.deepcopy(checkpoint)["tracker"] is checkpoint["tracker"]
    for _ in range(2):
        with pytest.raises(InputError, match=f"run {run.run}: this host has no key of it") as error:
            checkpoint["tracker"].track_epoch(1, {"loss": 1.0})
        assert "\n" not in str(error.value)
    assert pickle.loads(pickle.dumps(checkpoint))["model"] == 1


def test_an_estimator_that_holds_a_tracker_is_cloned(tmp_path: Path) -> None:
    base = framework("sklearn.base", "sklearn")
    from sklearn.linear_model import LogisticRegression

    class Tracked(LogisticRegression):  # type: ignore[misc]  # sklearn has no types
        def __init__(self, tracker: ProvenanceTracker) -> None:
            super().__init__()
            self.tracker = tracker

    tracker = ProvenanceTracker(tmp_path)
    assert base.clone(Tracked(tracker)).tracker.run_id == tracker.run_id
