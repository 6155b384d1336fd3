"""Every run of the database, verified one after another.

What runs share is done once: the outbox and the ledger's tree are read once per chunk of
runs, each node says once who it is, each transaction is looked up once and many with one
request where the node takes that, and a node that is down is asked once. Runs whose rows
are, byte for byte, those that held before are not checked again
(:mod:`provenance.verify.cache`); their networks are asked all the same.

A chunk is read in one snapshot and verified after it, so that no snapshot waits for a node.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from provenance.app.verify import witness_keys
from provenance.bootstrap import reading
from provenance.chains.keys import read_or_create_seed
from provenance.errors import (
    ConfigError,
    IntegrityError,
    ProvenanceError,
    StoreUnavailable,
    UnavailableError,
    UnknownRunError,
)
from provenance.evidence.from_database import evidence_of, outline_of
from provenance.evidence.rows import LedgerView, RunRows
from provenance.formats.cosignature import WitnessKey
from provenance.formats.ledger_tree import LedgerTree
from provenance.formats.note import VerifierKey
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState
from provenance.settings import Settings
from provenance.verify.cache import Held, VerifiedCache, key_file, program_digest
from provenance.verify.catalogue import RECORDS
from provenance.verify.headers import HeaderSource, header_source
from provenance.verify.nodes import Nodes
from provenance.verify.report import EXIT_CODES, Finding, Outcome, VerificationReport
from provenance.verify.verifier import verify, verify_again

CHUNK_RUNS: Final = 500
CHUNK_BYTES: Final = 16 * 1024**2
"""Rows of one chunk in memory, and at least one run's."""
_PLACED: Final = (AnchorState.CONFIRMED, AnchorState.FINAL)
_DAMAGED: Final = (
    ProvenanceError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
)
"""What rows that nobody wrote so can raise while they are read."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came out for one run: its report without tree, metrics and records.

    ``report`` is None where the run could not be read; ``problem`` says why then.
    """

    run: UUID
    outcome: Outcome
    report: VerificationReport | None
    problem: str | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What does not hold."""
        if self.report is not None:
            return self.report.findings
        if self.outcome == "failed":
            return (Finding(RECORDS, "run", f"cannot be read: {self.problem}"),)
        return ()

    @property
    def exit_code(self) -> int:
        """As of a single verification."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, object]:
        """For JSON: the keys that a single report has, but for the large ones."""
        found: dict[str, object] = {
            "run_id": str(self.run),
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "findings": [finding.as_dict() for finding in self.findings],
        }
        if self.report is None:
            return found | {"not_checked": [] if self.findings else [self.problem]}
        report = self.report
        return found | {
            "state": report.evidence.state,
            "roots": report.roots,
            "checks": [
                {"number": r.check.number, "status": r.status.value, "detail": r.detail}
                for r in report.checks
            ],
            "notices": [notice.as_dict() for notice in report.notices],
            "networks": {
                name: {label: seal.as_dict() for label, seal in seals.items()}
                for name, seals in report.networks.items()
            },
            "not_checked": list(report.not_checked),
        }


@dataclass(slots=True)
class Totals:
    """Counts over all runs."""

    runs: int = 0
    outcomes: dict[Outcome, int] = field(
        default_factory=lambda: {"verified": 0, "failed": 0, "unchecked": 0}
    )
    findings: int = 0

    def add(self, result: RunResult) -> None:
        """Count one run."""
        self.runs += 1
        self.outcomes[result.outcome] += 1
        self.findings += len(result.findings)

    @property
    def exit_code(self) -> int:
        """The worst: 1 failed, else 3 something could not be checked, else 0."""
        if self.outcomes["failed"]:
            return EXIT_CODES["failed"]
        return EXIT_CODES["unchecked" if self.outcomes["unchecked"] else "verified"]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        counts: dict[str, object] = {"runs": self.runs, "findings": self.findings}
        return counts | dict(self.outcomes) | {"exit_code": self.exit_code}


@dataclass(frozen=True, slots=True)
class _Read:
    """A run as read in a snapshot, or why it could not be."""

    run: UUID
    rows: RunRows | None = None
    error: Exception | None = None


def _alive(tx: LedgerTx) -> bool:
    """Whether a transaction is of any use after an error in it; PostgreSQL's is of none."""
    try:
        tx.head()
    except StoreUnavailable:
        return False
    return True


class AllRuns:
    """The runs of a store, oldest first, each verified when its turn comes.

    Args:
        nodes: The networks to ask; None asks nobody.
        headers, witnesses: As for :func:`provenance.verify.verifier.verify`.
        cache: None checks everything again.

    Attributes:
        totals: Of the runs that were iterated over so far.

    Raises:
        StoreUnavailable
        IntegrityError: The list of runs is damaged.
    """

    def __init__(
        self,
        store: LedgerStore,
        key: VerifierKey | None,
        nodes: Nodes | None,
        *,
        headers: HeaderSource | None = None,
        witnesses: Sequence[WitnessKey] = (),
        cache: VerifiedCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.totals = Totals()
        self.cache = cache
        self._store, self._key, self._nodes, self._headers = store, key, nodes, headers
        self._clock, self._witnesses = clock, witnesses
        self._where = str(getattr(store, "label", "database"))
        try:
            with store.snapshot() as tx:
                self._runs = [row.run for row in tx.runs()]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            told = f"{self._where}: the list of runs cannot be read: {error}"
            raise IntegrityError(told) from error

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[RunResult]:
        at = 0
        while at < len(self._runs):
            tree, chunk = self._chunk(at)
            at += len(chunk)
            self._look_ahead(chunk)
            for read in chunk:
                result = self._result(read, tree)
                self.totals.add(result)
                yield result
        if self.cache is not None:
            self.cache.close()

    def _chunk(self, at: int) -> tuple[LedgerTree, Sequence[_Read]]:
        """The next runs in one snapshot; all that are left where there can be none."""
        chunk: list[_Read] = []
        tree, weight = LedgerTree(()), 0
        try:
            with self._store.snapshot() as tx:
                view = LedgerView(tx)
                tree = view.tree
                for run in self._runs[at : at + CHUNK_RUNS]:
                    try:
                        rows = view.rows(run)
                    except _DAMAGED as error:
                        chunk.append(_Read(run, error=error))
                        if isinstance(error, StoreUnavailable) and not _alive(tx):
                            break
                        continue
                    chunk.append(_Read(run, rows))
                    weight += rows.weight
                    if weight >= CHUNK_BYTES:
                        break
        except _DAMAGED as error:
            if not chunk:
                chunk = [_Read(run, error=error) for run in self._runs[at:]]
        return tree, chunk

    def _look_ahead(self, chunk: Sequence[_Read]) -> None:
        if self._nodes is None:
            return
        wanted: dict[str, dict[str, None]] = {}
        for read in chunk:
            for anchor in read.rows.anchors if read.rows else ():
                if anchor.transaction_id is not None and anchor.state in _PLACED:
                    wanted.setdefault(anchor.network, {})[anchor.transaction_id] = None
        self._nodes.look_ahead(wanted)

    def _result(self, read: _Read, tree: LedgerTree) -> RunResult:
        try:
            if read.rows is None:
                raise read.error or LookupError(read.run)
            report = self._verified(read.rows, tree)
        except _DAMAGED as error:
            open_ = isinstance(error, UnavailableError)
            told = str(error) or type(error).__name__
            return RunResult(read.run, "unchecked" if open_ else "failed", None, told)
        return RunResult(read.run, report.outcome, report)

    def _verified(self, rows: RunRows, tree: LedgerTree) -> VerificationReport:
        now, key = self._clock(), self._key
        name = held = None
        if self.cache is not None:
            name = self.cache.key(rows, tree, key)
            held = self.cache.get(name)
        if held is not None:
            evidence = outline_of(rows, key, self._where)
            return verify_again(
                evidence, held, self._nodes, verifier_key=key, headers=self._headers, now=now
            )
        report = verify(
            evidence_of(rows, tree, key, self._where),
            None,
            verifier_key=key,
            headers=self._headers,
            nodes=self._nodes,
            witnesses=self._witnesses,
            now=now,
        )
        found = Held.of(report)
        if self.cache is not None and name is not None and found is not None:
            self.cache.put(name, found)
        return report


class VerifyAll(contextlib.AbstractContextManager["AllRuns"]):
    """All runs of the configured database on the configured networks.

    Args:
        offline: Ask no node.
        headers, quorum, witnesses: As for :func:`provenance.app.verify.verify_path`; with
            witnesses nothing is cached, for what they signed is checked against their keys.
        cached: False checks again what held before, and keeps nothing.
        networks: Networks to ask instead of the configured ones; left open.

    Raises:
        UnknownRunError: There is no database yet.
        StoreUnavailable, ConfigError, MissingExtraError, InputError
    """

    def __init__(
        self,
        settings: Settings,
        *,
        offline: bool = False,
        headers: Sequence[str] = (),
        quorum: int | None = None,
        witnesses: Sequence[str] = (),
        cached: bool = True,
        networks: Mapping[str, Network] | None = None,
    ) -> None:
        self._settings, self._offline = settings, offline
        self._headers = header_source(headers, quorum)
        self._witnesses = witness_keys(witnesses)
        self._cached = cached and not witnesses
        self._networks = networks
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> AllRuns:
        settings = self._settings
        with contextlib.ExitStack() as stack:
            store = reading.open_store(settings)
            if store is None:
                path = reading.sqlite_path(settings.database_url)
                raise UnknownRunError(f"verify --all: there is no database yet at {path}")
            stack.callback(store.close)
            runs = AllRuns(
                store,
                reading.ledger_key(settings),
                self._nodes(stack),
                headers=self._headers,
                witnesses=self._witnesses,
                cache=open_cache(settings, os.environ) if self._cached else None,
            )
            self._stack = stack.pop_all()
        return runs

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _nodes(self, stack: contextlib.ExitStack) -> Nodes | None:
        if self._offline:
            return None
        if self._networks is not None:
            return Nodes(self._networks)
        opened, unavailable = reading.open_networks(self._settings)
        for network in opened.values():
            stack.callback(network.close)
        return Nodes(opened, unavailable)


def open_cache(settings: Settings, environment: Mapping[str, str]) -> VerifiedCache | None:
    """The deployment's cache; None where this user has no place for its key, or the key
    would lie beside what it vouches for."""
    place, program = key_file(environment), program_digest()
    if place is None or program is None:
        return None
    base = settings.base_dir.resolve()
    if place.resolve().is_relative_to(base):
        return None
    try:
        secret = read_or_create_seed(place)
    except ConfigError:
        return None
    return VerifiedCache(base / "cache" / "verify", secret, program)
