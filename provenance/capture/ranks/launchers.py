"""Launchers that start a process beside others, and what each tells it: one table, :data:`_TABLE`.

The first of them that tells both counts: it is the innermost. Slurm's batch script has a rank and
the job's size too, and is no task (sbatch: ``ENVIRONMENT=BATCH``, no ``SLURM_STEP_ID``); its shell
from ``salloc`` has no rank.

Before the table come a session of Ray Train and an initialised ``jax.distributed``: they are
asked where their modules are loaded. Behind it come Lightning and Kubernetes' indexed jobs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from provenance.errors import ConfigError

RANK, WORLD_SIZE = "PROVENANCE_RANK", "PROVENANCE_WORLD_SIZE"
Environment = Mapping[str, str]
_ID_CONTEXT: Final = b"ml-provenance/launch/v1"
_MASTER: Final = ("MASTER_ADDR", "MASTER_PORT")
_INDEX: Final = "JOB_COMPLETION_INDEX"
_SLURM: Final = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")


class Launch(NamedTuple):
    """A process's place among those that were started together.

    Attributes:
        by: The launcher's name.
        rank, world_size: None where nothing tells it.
        id: SHA-256, in hex, of what the launcher tells all of them alike, such as a job's number;
            None where that is nothing.
    """

    by: str
    rank: int | None
    world_size: int | None
    id: str | None = None

    def __str__(self) -> str:
        rank = "a rank" if self.rank is None else f"rank {self.rank}"
        return f"{rank} of {'an unknown number' if self.world_size is None else self.world_size}"


class _Row(NamedTuple):
    """Variables with the rank, with the world size, and those that all ranks have in common."""

    by: str
    rank: str
    sizes: tuple[str, ...]
    shared: tuple[str, ...]
    alone: bool = False
    """The rank counts without a size too: how many there are is unknown then."""


_TABLE: Final = (
    # Accelerate and DeepSpeed set the same two.
    _Row("torchrun", "RANK", ("WORLD_SIZE",), ("TORCHELASTIC_RUN_ID", *_MASTER)),
    _Row(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_SIZE",),
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    ),
    _Row("MVAPICH", "MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_SIZE",), ("MPIRUN_ID",)),
    _Row(
        "Horovod",
        "HOROVOD_RANK",
        ("HOROVOD_SIZE",),
        ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
    ),
    # Intel MPI, and srun --mpi=pmi2, too; what ranks have in common Slurm tells, MPICH does not.
    _Row("MPICH", "PMI_RANK", ("PMI_SIZE",), ("PMI_JOBID", "PMI_PORT")),
    _Row("Slurm", "SLURM_PROCID", _SLURM, ("SLURM_JOB_ID", "SLURM_STEP_ID")),
    # PRRTE's prterun tells no size.
    _Row("PMIx", "PMIX_RANK", ("PMI_SIZE",), ("PMIX_NAMESPACE",), alone=True),
)


def own_ranks(env: Environment) -> tuple[int, int] | None:
    """``PROVENANCE_RANK`` and ``PROVENANCE_WORLD_SIZE``; None where neither is set. Raises
    ConfigError: not numbers, no rank of that many, or a size above 1 without a rank."""
    if not (env.get(RANK) or env.get(WORLD_SIZE)):
        return None
    rank, size = _pair(env, RANK, WORLD_SIZE)
    if size > 1 and not env.get(RANK):
        raise ConfigError(RANK, f"not set, and {WORLD_SIZE} is {size}")
    return rank, size


def launched(env: Environment, *, strict: bool = False) -> Launch | None:
    """What a launcher tells this process; None where none does.

    Args:
        strict: Refuse a ``RANK`` or ``WORLD_SIZE`` that stands alone; else it is passed over,
            since who set it may have meant something else.

    Raises:
        ConfigError: A rank or size that is no number, or no rank of that many.
    """
    found = _of_ray() or _of_jax()
    if found is not None:
        return found
    if strict and env.get("RANK"):
        return _launch(env, "torchrun", *_pair(env, "RANK", "WORLD_SIZE"), _TABLE[0].shared)
    for row in _TABLE:
        if env.get(row.rank) and not (row.by == "Slurm" and _is_batch_script(env)):
            for size in filter(env.get, row.sizes):
                return _launch(env, row.by, *_pair(env, row.rank, size), row.shared)
            if row.alone:
                return _launch(env, row.by, _number(env, row.rank, 0), None, row.shared)
    found = _of_lightning(env) or _of_kubernetes(env)
    if found is None and strict and _number(env, "WORLD_SIZE", 1) > 1:
        return _launch(env, "WORLD_SIZE", None, _number(env, "WORLD_SIZE", 1), _MASTER)
    return found


def launch_id(env: Environment, names: tuple[str, ...] = (), **more: str) -> str | None:
    """A digest of the variables with these names, which all ranks of a launch have alike; where
    none of them is set, of the master's address and port."""
    stated = {name: env[name] for name in names if env.get(name)} | more
    stated = stated or {name: env[name] for name in _MASTER if env.get(name)}
    text = "\0".join(f"{name}={value}" for name, value in sorted(stated.items()))
    return hashlib.sha256(_ID_CONTEXT + b"\0" + text.encode()).hexdigest() if stated else None


def _launch(
    env: Environment, by: str, rank: int | None, size: int | None, shared: tuple[str, ...]
) -> Launch:
    return Launch(by, rank, size, launch_id(env, shared))


def _is_batch_script(env: Environment) -> bool:
    """Inside of sbatch and of no srun: one process, whatever the job's size."""
    in_step = bool(env.get("SLURM_STEP_ID") or env.get("SLURM_STEPID"))
    return env.get("ENVIRONMENT") == "BATCH" and not in_step


def _of_lightning(env: Environment) -> Launch | None:
    """Lightning starts the other processes of a node with ``LOCAL_RANK`` and no ``RANK``."""
    if not (env.get("LOCAL_RANK") and env.get("WORLD_SIZE")):
        return None
    local, size = _number(env, "LOCAL_RANK", 0), _number(env, "WORLD_SIZE", 1)
    node = _number(env, "NODE_RANK" if env.get("NODE_RANK") else "GROUP_RANK", 0)
    rank = local if node == 0 or size == 1 else None
    if env.get("LOCAL_WORLD_SIZE"):
        rank = node * _number(env, "LOCAL_WORLD_SIZE", 1) + local
    if rank is not None and rank >= size:
        raise ConfigError("LOCAL_RANK", f"found {local}, expected below WORLD_SIZE {size}")
    return _launch(env, "Lightning", rank, size, _MASTER)


def _of_kubernetes(env: Environment) -> Launch | None:
    if not env.get(_INDEX):
        return None
    index = _number(env, _INDEX, 0)
    # A pod of an indexed job is called JOB-INDEX (batch/v1 Job, completionMode Indexed).
    job = {"HOSTNAME": env.get("HOSTNAME", "").removesuffix(f"-{index}")}
    named = job["HOSTNAME"] not in ("", env.get("HOSTNAME"))
    identity = launch_id(env, ("JOB_NAME",), **(job if named else {}))
    size = _number(env, "WORLD_SIZE", 1) if env.get("WORLD_SIZE") else None
    if size is not None and index >= size:
        raise ConfigError(_INDEX, f"found {index}, expected 0 to {size - 1} (WORLD_SIZE {size})")
    return Launch("Kubernetes", index, size, identity)


def _of_ray() -> Launch | None:
    """Ray Train's session, where this is one of its workers."""
    train = sys.modules.get("ray.train")
    context: Any = None
    # Outside of a session it raises a RuntimeError, inside of Ray Tune's a DeprecationWarning.
    with suppress(RuntimeError, AttributeError, Warning):
        context = None if train is None else train.get_context()
    rank, size = _asked(context, "get_world_rank"), _asked(context, "get_world_size")
    if not isinstance(rank, int) or not isinstance(size, int):
        return None
    name = _asked(context, "get_experiment_name")
    return Launch("Ray Train", rank, size, launch_id({}, RAY_EXPERIMENT=str(name)))


def _asked(context: Any, name: str) -> object:
    with suppress(RuntimeError, AttributeError, Warning):
        return getattr(context, name)()
    return None


def jax_state() -> Any:
    """The state of ``jax.distributed`` where it is initialised with several processes, else None.

    It is asked without a call that would start JAX's devices.
    """
    distributed = sys.modules.get("jax._src.distributed")
    state = getattr(distributed, "global_state", None)
    if getattr(state, "client", None) is None or getattr(state, "num_processes", None) in (None, 1):
        return None
    return state


def _of_jax() -> Launch | None:
    state = jax_state()
    if state is None:
        return None
    address = launch_id({}, JAX_COORDINATOR=str(state.coordinator_address))
    return Launch("JAX", int(state.process_id), int(state.num_processes), address)


def _pair(env: Environment, rank_name: str, size_name: str) -> tuple[int, int]:
    rank, size = _number(env, rank_name, 0), _number(env, size_name, 1)
    if size < 1:
        raise ConfigError(size_name, f"found {size}, expected a whole number from 1")
    if rank >= size:
        raise ConfigError(rank_name, f"found {rank}, expected 0 to {size - 1} ({size_name} {size})")
    return rank, size


def _number(env: Environment, name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(name, f"found {text[:40]!r}, expected a whole number")
    return int(text)
