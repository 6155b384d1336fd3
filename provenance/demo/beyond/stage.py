"""What the walks stand on: the demo's deployment, whose servers and fleet still run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from provenance.app.verify import verify_run
from provenance.errors import NetworkUnavailable, ProvenanceError, UnknownRunError
from provenance.settings import Settings
from provenance.tickets import Ticket
from provenance.tracker import ProvenanceTracker
from provenance_devnet import ServerState

WALKS: Final = (
    "approvals", "multisig", "scheduled", "time_locks", "cross", "hidden_numbers", "items",
    "fresh_seed", "lineage", "compliance", "runs", "host",
)  # fmt: skip
"""Modules of this package, in the order of docs/guides."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo's deployment. Blocks are mined on its dev chains, one a second.

    Attributes:
        config: Its configuration, which pins its test chains.
        run: Id of the demo's run: verified, its anchors final on every network.
        bundle: That run's evidence, a folder.
        scratch: A folder for what a walk writes.
        servers: The dev servers that run, by name.
    """

    settings: Settings
    config: Path
    run: str
    bundle: Path
    scratch: Path
    servers: Mapping[str, ServerState]

    def tracker(self) -> ProvenanceTracker:
        """Begin another run of this deployment."""
        return ProvenanceTracker(self.settings.base_dir, self.config)

    def wait(self, tickets: Collection[Ticket], timeout_s: float = 60.0) -> None:
        """Until every anchor is final; ``NetworkUnavailable`` where one is not in time."""
        deadline = time.monotonic() + timeout_s
        while waiting := [ticket for ticket in tickets if ticket.status != "final"]:
            if time.monotonic() > deadline or any(t.status == "failed" for t in waiting):
                ticket = waiting[0]
                raise NetworkUnavailable(f"{ticket.network}: the anchor is {ticket.status}")
            time.sleep(0.3)

    def sealed(self, run: str, timeout_s: float = 30.0) -> str:
        """Wait until a run has its last seal; its id. ``NetworkUnavailable`` where it is late."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(UnknownRunError):
                seals = verify_run(self.settings, run, offline=True).seals
                if seals and seals[-1].label == "after":
                    return run
            time.sleep(0.1)
        raise NetworkUnavailable(f"run {run}: not sealed within {timeout_s:.0f} s")


def walk_all(stage: Stage, say: Callable[[str, str], None]) -> dict[str, Any]:
    """Each capability's line of evidence; what failed or was left out says why."""
    document: dict[str, Any] = {}
    for name in WALKS:
        module = import_module(f"provenance.demo.beyond.{name}")
        absent = sorted(set(module.NEEDS) - set(stage.settings.blockchain.networks))
        if absent:
            document[name] = {"status": "left out", "line": f"needs {', '.join(absent)}"}
        else:
            started = time.monotonic()
            try:
                line, status = module.walk(stage), "shown"
            except ProvenanceError as error:
                line, status = str(error), "failed"
            seconds = round(time.monotonic() - started, 1)
            document[name] = {"status": status, "line": line, "seconds": seconds}
        say(name, document[name]["line"])
    return document
