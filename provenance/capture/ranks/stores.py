"""Stores of keys and values that ranks share, and who took part by them.

c10d's (torchrun's agent's, a process group's) and the coordination service of ``jax.distributed``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from provenance.capture.ranks.launchers import jax_state


class Store(Protocol):
    """Keys and values that every rank reaches."""

    def offer(self, name: str, value: str) -> str:
        """The value of that name; the first that is offered stays."""

    def wait_for(self, name: str, seconds: float) -> str | None:
        """The value once somebody has offered one; None where nobody did."""


class _TorchStore:
    """A store of c10d: torchrun's agent's, or a process group's."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def offer(self, name: str, value: str) -> str:
        return bytes(self._store.compare_set(name, "", value)).decode()

    def wait_for(self, name: str, seconds: float) -> str | None:
        try:
            self._store.wait([name], timedelta(seconds=seconds))
        except RuntimeError:  # how c10d says that time is up
            return None
        return bytes(self._store.get(name)).decode()


class CollectiveStore:
    """A process group whose backend has no store (MPI): a broadcast is the only way."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def offer(self, name: str, value: str) -> str:
        """Rank 0's value, whatever the name: all ranks call this at once."""
        values = [value]
        self._group.broadcast_object_list(values, src=0)
        return values[0]

    def wait_for(self, name: str, seconds: float) -> str | None:
        """The same, for as long as it takes."""
        return self.offer(name, "")


class _JaxStore:
    """The coordination service of ``jax.distributed``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def offer(self, name: str, value: str) -> str:
        try:
            self._client.key_value_set(name, value)
        except RuntimeError:  # there already
            return self.wait_for(name, 1.0) or value
        return value

    def wait_for(self, name: str, seconds: float) -> str | None:
        try:
            return str(self._client.blocking_key_value_get(name, int(seconds * 1000)))
        except RuntimeError:  # how it says that time is up
            return None


def shared_store(env: Mapping[str, str], group: Any, wait_s: float) -> Store | None:
    """The store of the ranks; torchrun's comes first, as it is there before a process group is."""
    store = _agents_store(env, wait_s)
    if store is not None:
        return _TorchStore(store)
    if group is not None:
        store = group.distributed_c10d._get_default_store()
        return CollectiveStore(group) if store is None else _TorchStore(store)
    state = jax_state()
    return None if state is None else _JaxStore(state.client)


def _agents_store(env: Mapping[str, str], wait_s: float) -> Any:
    """The store that torchrun's agent serves (torch 2.4 or later), as a client; else None.

    It outlives the ranks: an elastic restart finds what those before had.
    """
    address, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT", "")
    served = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not (served and address and port.isdecimal()):
        return None
    try:
        distributed = import_module("torch.distributed")  # torchrun's process has it
        wait = timedelta(seconds=max(wait_s, 1.0))
        return distributed.TCPStore(
            address, int(port), is_master=False, timeout=wait, wait_for_workers=False
        )
    except (ImportError, RuntimeError):
        return None


def process_group() -> Any:
    """The ``torch.distributed`` module where a process group of several is up, else None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed if distributed.get_world_size() > 1 else None


class Roster(NamedTuple):
    """Which ranks made a tracker of a run, kept in the store that they share."""

    store: Store
    name: str
    rank: int
    world_size: int

    def join(self) -> bool:
        """Note this rank; False where it came after the run's end."""
        if isinstance(self.store, CollectiveStore):
            return True
        return self.store.offer(f"{self.name}/{self.rank}", "here") == "here"

    def absent(self) -> list[int]:
        """The ranks that made none, and cannot join any more; none where the store is gone."""
        if isinstance(self.store, CollectiveStore):  # it has no notes
            return []
        others = (rank for rank in range(self.world_size) if rank != self.rank)
        try:
            return [n for n in others if self.store.offer(f"{self.name}/{n}", "absent") != "here"]
        except RuntimeError:
            return []
