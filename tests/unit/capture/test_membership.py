"""Which run a process writes: every way to be told, and every refusal."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from provenance.capture import membership
from provenance.capture.keys import RunKeys, keep_run_keys, make_key_file, new_run_keys
from provenance.capture.membership import join_run
from provenance.errors import ConfigError
from provenance.tracker import ProvenanceTracker
from tests.support.frameworks import installed
from tests.support.home import brought_home
from tests.support.paths import ROOT

KEYS = new_run_keys()
TOLD = {"PROVENANCE_RUN_ID": str(KEYS.run), "PROVENANCE_RUN_SEED": KEYS.seed.hex()}


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PROVENANCE_R", "PROVENANCE_W", "SLURM_", "OMPI_", "PMI_", "TORCHEL")):
            monkeypatch.delenv(name)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)


def setenv(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_alone_it_is_a_new_run_of_one_process(tmp_path: Path) -> None:
    first, second = join_run(tmp_path), join_run(tmp_path)
    assert (first.rank, first.world_size) == (0, 1)
    assert first.keys.run != second.keys.run


@pytest.mark.parametrize(
    ("told", "ranks"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, (2, 3)),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, (0, 2)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "6"}, (5, 6)),
        ({"ENVIRONMENT": "BATCH", "SLURM_PROCID": "0", "SLURM_NTASKS": "6"}, (0, 1)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}, (1, 4)),
        ({"WORLD_SIZE": "4", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}, (3, 4)),
        ({"RANK": "3", "WORLD_SIZE": "4", "PROVENANCE_WORLD_SIZE": "1"}, (0, 1)),
        ({"PROVENANCE_RANK": "7", "PROVENANCE_WORLD_SIZE": "8"}, (7, 8)),
    ],
)
def test_who_is_told_the_run_takes_its_rank_from_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], ranks: tuple[int, int]
) -> None:
    setenv(monkeypatch, TOLD | told)
    joined = join_run(tmp_path)
    assert joined.keys == KEYS
    assert (joined.rank, joined.world_size) == ranks


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {"PROVENANCE_RANK": "1", "PROVENANCE_WORLD_SIZE": "2"},
    ],
)
def test_a_rank_that_nobody_hands_a_run_writes_one_that_states_its_launch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told: dict[str, str],
) -> None:
    setenv(monkeypatch, told)
    monkeypatch.setattr(membership, "_warned", False)
    first, second = join_run(tmp_path), join_run(tmp_path)
    assert first.keys.run != second.keys.run
    assert (first.rank, first.world_size) == (0, 1)
    ranks = tuple(int(value) for name, value in told.items() if name != "SLURM_STEP_ID")
    assert first.launch is not None
    assert (first.launch.rank, first.launch.world_size) == ranks
    (line,) = "".join(capsys.readouterr()).splitlines()  # once a process
    for way in ("provenance run --", "PROVENANCE_RUN_SEED", "PROVENANCE_RUN_KEY_FILE"):
        assert way in line
    assert f"rank {ranks[0]} of 2" in line


@pytest.mark.parametrize(
    "odd",
    [
        {"RANK": "banana"},
        {"WORLD_SIZE": "8"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "3"},
    ],
)
def test_variables_that_no_launcher_sets_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: dict[str, str]
) -> None:
    setenv(monkeypatch, odd)
    joined = join_run(tmp_path)
    assert (joined.rank, joined.world_size) == (0, 1)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"PROVENANCE_RUN_ID": "run one"}, "expected a UUID"),
        ({"PROVENANCE_RUN_SEED": "5ec2e7zz"}, "not 64 hex digits"),
        ({"PROVENANCE_RUN_SEED": "5ec2e7" * 10 + "0000"}, "not the id of the run with that seed"),
        ({"PROVENANCE_RUN_ID": ""}, "belong together"),
        ({"RANK": "x"}, "RANK: found 'x'"),
        ({"WORLD_SIZE": "8"}, "RANK: not set"),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1"}, "RANK: not set"),
        ({"PROVENANCE_WORLD_SIZE": "8"}, "PROVENANCE_RANK: not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "expected 0 to 1"),
        ({"PROVENANCE_RANK": "2", "PROVENANCE_WORLD_SIZE": "2"}, "expected 0 to 1"),
        ({"PROVENANCE_RUN_SEED": ""}, "this host has no key of run"),
        ({"JOB_COMPLETION_INDEX": "1"}, "PROVENANCE_WORLD_SIZE: not set"),
    ],
)
def test_what_cannot_be_is_refused_and_no_seed_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], problem: str
) -> None:
    setenv(monkeypatch, TOLD | told)
    with pytest.raises(ConfigError, match=problem) as caught:
        join_run(tmp_path)
    assert "5ec2e7" not in str(caught.value)
    assert KEYS.seed.hex() not in str(caught.value)


def test_the_id_alone_is_enough_where_the_host_has_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_run_keys(tmp_path / str(KEYS.run), KEYS)
    monkeypatch.setenv("PROVENANCE_RUN_ID", str(KEYS.run))
    assert join_run(tmp_path).keys == KEYS


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"RANK": "banana", "WORLD_SIZE": "2"}, "RANK: found 'banana', expected a whole number"),
        ({"RANK": "5", "WORLD_SIZE": "2"}, "RANK: found 5, expected 0 to 1"),
        ({"RANK": "3", "WORLD_SIZE": "9" * 30}, "WORLD_SIZE: found '999"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE: found 0, expected a whole number from 1"),
        ({"SLURM_PROCID": "-1", "SLURM_NTASKS": "2"}, "SLURM_PROCID: found '-1'"),
        ({"LOCAL_RANK": "4", "WORLD_SIZE": "2"}, "LOCAL_RANK: found 4"),
        ({"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "2"}, "JOB_COMPLETION_INDEX: found 2"),
    ],
)
def test_what_a_launcher_sets_and_does_not_parse_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], problem: str
) -> None:
    setenv(monkeypatch, told)
    with pytest.raises(ConfigError) as caught:
        join_run(tmp_path)
    assert str(caught.value).startswith(problem)


def test_rank_0_makes_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.key"
    monkeypatch.setenv("PROVENANCE_RUN_KEY_FILE", str(path))
    made = [join_run(tmp_path).keys for _ in range(2)]
    assert made[0] == made[1]
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("PROVENANCE_RUN_KEY_FILE", "/proc/no/run.key")
    with pytest.raises(ConfigError, match="PROVENANCE_RUN_KEY_FILE: /proc/no"):
        join_run(tmp_path)


@pytest.mark.slow
def test_a_key_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shared" / "run.key"
    setenv(monkeypatch, {"PROVENANCE_RUN_KEY_FILE": str(path), "RANK": "1", "WORLD_SIZE": "2"})
    monkeypatch.setenv("PROVENANCE_RUN_WAIT", "0")
    with pytest.raises(ConfigError, match="is not there after 0 s"):
        join_run(tmp_path)
    monkeypatch.setenv("PROVENANCE_RUN_WAIT", "60")
    threading.Timer(0.2, make_key_file, (path, KEYS)).start()
    assert join_run(tmp_path)[:3] == (KEYS, 1, 2)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        join_run(tmp_path)
    path.chmod(0o600)
    monkeypatch.setenv("PROVENANCE_RUN_ID", str(new_run_keys().run))
    with pytest.raises(ConfigError, match="is the key of run"):
        join_run(tmp_path)


RANK = """
    import os, sys, time
    from pathlib import Path
    import torch.distributed as dist
    from provenance.capture.keys import new_run_keys
    from provenance.capture.membership import join_run
    from provenance.errors import ConfigError

    rank, late = int(sys.argv[1]), sys.argv[3] == sys.argv[1]
    store = dist.FileStore(sys.argv[2], 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    if late:
        time.sleep(1.0)
    for _ in range(2):
        joined = join_run(Path("spool"))
        print(joined.keys.run, joined.keys.seed.hex(), joined.rank, joined.world_size)
    keys = new_run_keys()  # each its own, as two launchers would tell them
    os.environ |= {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}
    try:
        join_run(Path("spool"))
    except ConfigError as error:
        print("refused", keys.seed.hex() in str(error), error)
    dist.barrier()
"""


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_a_process_group_shares_the_keys_of_rank_0(tmp_path: Path, late: int) -> None:
    installed("torch")
    script = textwrap.dedent(RANK)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(tmp_path / "store"), str(late)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for rank in range(2)
    ]  # fmt: skip
    lines = [process.communicate(timeout=120)[0].splitlines() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    (refused,) = (process.pop() for process in lines if process[-1].startswith("refused"))
    assert refused.startswith("refused False PROVENANCE_RUN_ID: this rank has run ")
    for first, second in zip(*lines, strict=True):
        assert first.split()[:2] == second.split()[:2]
        assert (first.split()[2:], second.split()[2:]) == (["0", "2"], ["1", "2"])
    assert lines[0][0].split()[0] != lines[0][1].split()[0]  # two trackers, two runs


def test_rank_0_waits_for_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where one rank alone makes a tracker, no collective holds it up; the others are told."""

    class Store:
        def __init__(self) -> None:
            self.values: dict[str, bytes] = {}

        def set(self, name: str, value: str) -> None:
            self.values[name] = value.encode()

        def compare_set(self, name: str, expected: str, desired: str) -> bytes:
            assert expected == ""
            return self.values.setdefault(name, desired.encode())

        def wait(self, names: list[str], timeout: object) -> None:
            if names[0] not in self.values:
                raise RuntimeError("wait timeout")

    class Group:
        rank, store = 0, Store()

        def is_available(self) -> bool:
            return True

        is_initialized = is_available

        def get_rank(self) -> int:
            return self.rank

        def get_world_size(self) -> int:
            return 2

        @property
        def distributed_c10d(self) -> Group:
            return self

        def _get_default_store(self) -> Store:
            return self.store

    group = Group()
    monkeypatch.setitem(sys.modules, "torch.distributed", group)
    began = time.monotonic()
    assert (join_run(tmp_path).rank, join_run(tmp_path).world_size) == (0, 2)
    assert time.monotonic() - began < 30
    group.rank, group.store = 1, Store()
    launch = join_run(tmp_path).launch
    assert launch is not None
    assert launch[:3] == ("torch.distributed", 1, 2)
    monkeypatch.setenv("PROVENANCE_WORLD_SIZE", "1")
    assert join_run(tmp_path).world_size == 1
    assert isinstance(join_run(tmp_path).keys, RunKeys)


@pytest.mark.slow
def test_a_run_that_this_process_finished_is_told_to_no_further_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = new_run_keys()
    setenv(
        monkeypatch, {"PROVENANCE_RUN_ID": str(keys.run), "PROVENANCE_RUN_SEED": keys.seed.hex()}
    )
    runs = []
    for state in ("failed", "finished", "finished"):
        tracker = ProvenanceTracker(tmp_path)
        tracker.track_epoch(1, {"loss": 1.0})
        tracker.close(state, state)
        runs.append(tracker.run)
    assert runs[:2] == [keys.run] * 2
    assert runs[2] != keys.run
    for report in brought_home(tmp_path).values():
        assert report.outcome == "verified", report.findings
    setenv(monkeypatch, {"RANK": "0", "WORLD_SIZE": "2"})
    alone = join_run(tmp_path)
    assert alone.keys.run not in runs
    assert alone.launch is not None
    monkeypatch.setenv("RANK", "1")
    assert join_run(tmp_path).keys.run == keys.run
