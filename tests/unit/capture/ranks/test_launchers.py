"""What launchers tell a process: a row for each, and what is no launch."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from provenance.capture.ranks.launchers import Launch, launch_id, launched
from provenance.errors import ConfigError

MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8", **MASTER}, ("torchrun", 3, 8)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, ("Open MPI", 1, 2)),
        ({"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2"}, ("MVAPICH", 1, 2)),
        ({"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}, ("Horovod", 1, 2)),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, ("MPICH", 1, 2)),
        ({"PMIX_RANK": "1", "PMI_SIZE": "2"}, ("PMIx", 1, 2)),
        ({"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-host-7@1"}, ("PMIx", 1, None)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, ("Slurm", 1, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NPROCS": "2"}, ("Slurm", 0, 2)),
        (
            {"SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1",
             "SLURM_NTASKS": "8"},
            ("Slurm", 0, 1),
        ),
        (
            {"ENVIRONMENT": "BATCH", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1",
             "SLURM_NTASKS": "2"},
            ("Slurm", 1, 2),
        ),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", **MASTER}, ("Lightning", 1, 2)),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1"}, ("Lightning", None, 4)),
        (
            {"LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            ("Lightning", 3, 4),
        ),
        ({"JOB_COMPLETION_INDEX": "2"}, ("Kubernetes", 2, None)),
        ({"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "3"}, ("Kubernetes", 2, 3)),
        # mpirun inside of a batch script, and torchrun under srun: the innermost counts
        (
            {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_PROCID": "0",
             "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"},
            ("Open MPI", 1, 2),
        ),
        (  # mpiexec -launcher slurm: its proxies are the tasks
            {"PMI_RANK": "1", "PMI_SIZE": "2", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1",
             "SLURM_STEP_ID": "0"},
            ("MPICH", 1, 2),
        ),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            ("torchrun", 5, 8),
        ),
    ],
)  # fmt: skip
def test_each_launcher_is_known_by_its_variables(
    env: dict[str, str], expected: tuple[str, int | None, int | None]
) -> None:
    found = launched(env)
    assert found is not None
    assert found[:3] == expected


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"ENVIRONMENT": "BATCH", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"},  # the shell of salloc
        {"RANK": "4"},
        {"WORLD_SIZE": "4"},
        {"LOCAL_RANK": "1"},
    ],
)
def test_what_is_no_launch_is_none(env: dict[str, str]) -> None:
    assert launched(env) is None


def test_a_launch_has_one_id_for_all_its_ranks_and_another_for_the_next_job() -> None:
    def ids(job: str) -> set[str | None]:
        told = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": job, "SLURM_STEP_ID": "0"}
        found = [launched({**told, "SLURM_PROCID": str(rank)}) for rank in range(2)]
        return {one.id for one in found if one is not None}

    (first,), (second,) = ids("7"), ids("8")
    assert first is not None
    assert first != second
    assert len(first) == 64
    pods = [
        launched({"JOB_COMPLETION_INDEX": str(i), "WORLD_SIZE": "2", "HOSTNAME": f"train-{i}"})
        for i in range(2)
    ]
    assert len({pod.id for pod in pods if pod is not None and pod.id}) == 1
    assert launched({"PMI_RANK": "0", "PMI_SIZE": "2"}) == Launch("MPICH", 0, 2, None)
    assert launched({"PMI_RANK": "0", "PMI_SIZE": "2", **MASTER}) == Launch(
        "MPICH", 0, 2, launch_id(MASTER)
    )


def test_what_does_not_parse_is_one_line() -> None:
    with pytest.raises(ConfigError, match="^PMI_RANK: found 'one', expected a whole number$"):
        launched({"PMI_RANK": "one", "PMI_SIZE": "2"})
    with pytest.raises(ConfigError, match=r"^RANK: found 2, expected 0 to 1 \(WORLD_SIZE 2\)$"):
        launched({"RANK": "2", "WORLD_SIZE": "2"})


def test_ray_is_asked_inside_of_its_session_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside() -> object:
        raise RuntimeError("cannot be used outside of a Ray Train training function")

    context = SimpleNamespace(
        get_world_rank=lambda: 1, get_world_size=lambda: 2, get_experiment_name=lambda: "tune"
    )
    train = ModuleType("ray.train")
    monkeypatch.setitem(sys.modules, "ray.train", train)
    assert launched({}) is None
    train.get_context = outside  # type: ignore[attr-defined]
    assert launched({}) is None
    train.get_context = lambda: context  # type: ignore[attr-defined]
    found = launched({"RANK": "0", "WORLD_SIZE": "1"})
    assert found is not None
    assert found[:3] == ("Ray Train", 1, 2)


def test_jax_is_asked_once_it_is_initialised(monkeypatch: pytest.MonkeyPatch) -> None:
    state = SimpleNamespace(
        client=None, process_id=1, num_processes=2, coordinator_address="host:1234"
    )
    distributed = ModuleType("jax._src.distributed")
    distributed.global_state = state  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jax._src.distributed", distributed)
    assert launched({}) is None
    state.client = object()
    found = launched({})
    assert found is not None
    assert found[:3] == ("JAX", 1, 2)
