"""A ledger with its networks, whose anchoring passes run here or in a child that is killed.

The clock can be pushed on (``skew``), so that no test waits for a lease or a fee bump. What
is on a chain is read past the production code, by plain RPC: :mod:`tests.faults.support.chains`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from provenance.anchor.confirm import confirm
from provenance.anchor.delivery import AnchorDelivery, Pass
from provenance.anchor.publish import publish
from provenance.bootstrap import sending
from provenance.formats.receipt import Receipt
from provenance.ledger.ingest import ingest
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore
from provenance.ports.values import AnchorRow, AnchorState, VersionRow
from provenance.settings import BitcoinSettings, RetrySettings, Settings, load
from tests.faults.support import checker
from tests.faults.support.harness import Tally
from tests.support.nodes.ethereum_chain import KEYS, Anvil
from tests.support.nodes.regtest import Regtest
from tests.support.paths import ROOT
from tests.support.runs import complete_run, some_run
from tests.support.verify_world import Acknowledgements

LEASE_S = 30.0
RETRY = RetrySettings(base_s=0.1, cap_s=1.0)


def ethereum_section(url: str, **changes: Any) -> dict[str, Any]:
    return {"url": url, "private_key": KEYS[0], "confirmations": 3, "timeout": 10, **changes}


def bitcoin_section(settings: BitcoinSettings, **changes: Any) -> dict[str, Any]:
    return {
        "url": settings.url,
        "network": "regtest",
        "cookie_file": str(settings.cookie_file),
        "wallet": settings.wallet,
        "confirmations": 3,
        "timeout": 15,
        **changes,
    }


@dataclass
class Deployment:
    """``networks`` are sections of ``blockchain``; ``{}`` for ``local``."""

    base: Path
    sections: Mapping[str, Mapping[str, Any]]
    skew: float = 0.0
    approvals: Mapping[str, Any] | None = None
    runs: list[UUID] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.config = self.write(self.sections, "config.json")
        self.settings: Settings = load(self.config, self.base)
        store = sending.open_store(self.settings)
        assert store is not None
        self.store: LedgerStore = store
        self.networks: dict[str, Network] = sending.open_networks(self.settings)

    def write(self, sections: Mapping[str, Mapping[str, Any]], name: str) -> Path:
        """A configuration file with these networks."""
        chain = {network: dict(section) for network, section in sections.items() if section}
        document: dict[str, Any] = {"blockchain": {"networks": list(sections), **chain}}
        if self.approvals is not None:
            document["approvals"] = self.approvals
        path = self.base / name
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def close(self) -> None:
        for network in self.networks.values():
            network.close()
        self.store.close()

    def clock(self) -> float:
        return time.time() + self.skew

    def head(self) -> bytes:
        """A whole small run is ingested and sealed; the root of the head that is due now."""
        run = some_run()
        policy = sending.seal_policy(self.settings)
        deliveries = complete_run(epochs=1, run=run).deliveries(size=32)
        ingest(Acknowledgements(), self.store, policy, deliveries, self.clock)  # type: ignore[arg-type]  # all of a transport that ingest uses
        self.runs.append(run)
        with self.store.snapshot() as tx:
            head = tx.head()
        assert head is not None
        return head.root

    # --- passes -------------------------------------------------------------------------

    def publish(self, name: str, network: Network | None = None) -> Pass:
        """One pass; all rows are due and no lease of the past stands."""
        self.skew += LEASE_S + 1
        return publish(self.delivery(network or self.networks[name]))

    def delivery(self, network: Network) -> AnchorDelivery:
        conditions = sending.anchor_conditions(self.settings, network.name)
        how = (secrets.token_hex(4), LEASE_S, RETRY, lambda: 0.0, conditions)
        return AnchorDelivery(self.store, network, self.clock, *how)

    def confirm(self, name: str, network: Network | None = None, *, bump_s: float = 1e9) -> Pass:
        self.skew += LEASE_S + 1
        delivery = self.delivery(network or self.networks[name])
        return confirm(delivery, poll_s=1.0, fee_bump_after_s=bump_s)

    # --- what the database says -----------------------------------------------------------

    def rows(self, name: str) -> Sequence[AnchorRow]:
        """All but the superseded."""
        with self.store.snapshot() as tx:
            return [r for r in tx.anchors(name) if r.state is not AnchorState.REPLACED]

    def row(self, name: str) -> AnchorRow:
        """Of the largest head."""
        return self.rows(name)[-1]

    def versions(self, name: str) -> Sequence[VersionRow]:
        """Of the largest head, oldest first."""
        with self.store.snapshot() as tx:
            return tx.versions(self.row(name).id)

    def receipts(self, name: str) -> list[Receipt]:
        """All receipts of the newest run on a network."""
        with self.store.snapshot() as tx:
            rows = tx.receipts(self.runs[-1])
        return [Receipt.decode(r.document.encode()) for r in rows if r.network == name]

    def paused(self, name: str) -> str | None:
        with self.store.snapshot() as tx:
            known = tx.network(name)
        return known.paused if known else None

    def fsck(self, tally: Tally, **honest: Mapping[str, Any]) -> None:
        """``provenance fsck`` as a process; it must find nothing.

        Args:
            honest: Sections that take the place of those that lead to a proxy of a test.
        """
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        config = self.write({**self.sections, **honest}, "fsck.json")
        report = checker.fsck(self.settings, config, env, online=True)
        tally.doubled += sum("doubl" in finding["kind"] for finding in report["findings"])
        assert report["findings"] == []


@contextmanager
def deployment(
    base: Path, approvals: Mapping[str, Any] | None = None, **sections: Mapping[str, Any]
) -> Iterator[Deployment]:
    made = Deployment(base, sections, approvals=approvals)
    try:
        yield made
    finally:
        made.close()


def anchored(world: Deployment, regtest: Regtest, chain: Anvil) -> None:
    """A run, and its head final everywhere."""
    world.head()
    for _ in range(2):
        for name in world.networks:
            world.publish(name)
        regtest.mine(3)
        chain.mine(3)
        for name in world.networks:
            world.confirm(name)
    for name in world.networks:
        assert world.row(name).state is AnchorState.FINAL, name


class Nursery:
    """Children by fork from a process that has imported everything: one costs milliseconds.

    A child opens its own database and network, runs passes, and kills itself with SIGKILL
    where the job says so: at a named ``point``, or at the ``nth`` one it comes through.
    """

    POINTS = ("built", "signed", "storing", "stored", "sent", "recording", "recorded")

    def __init__(self, world: Deployment) -> None:
        self.world = world
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.support.killed_child", str(world.base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def start(self, name: str, **job: Any) -> None:
        """Begin a job: ``do`` (``publish``, ``confirm`` or both), ``point`` or ``nth``."""
        assert self.process.stdin is not None
        told = {"network": name, "do": ["publish"], "skew": self.world.skew, **job}
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """``{"killed": bool, "points": [...]}`` of the job begun first."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the nursery ended with {self.process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        assert answer["status"] in (0, -9), answer
        return answer

    def run(self, name: str, **job: Any) -> dict[str, Any]:
        self.world.skew += LEASE_S + 1
        self.start(name, **job)
        return self.result()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
