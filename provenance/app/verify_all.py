"""Every run of the database, verified one after another.

What runs share is done once: the ledger's claim is read once per chunk of runs, each node says
once who it is, each transaction is looked up once and many with one request where the node takes
that, and a node that is down is asked once.

A chunk is read in one snapshot and verified after it, so that no snapshot waits for a node.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Unpack
from uuid import UUID

from provenance.app.verify import Options, header_source, own_trust
from provenance.bootstrap import reading
from provenance.errors import IntegrityError, ProvenanceError, StoreUnavailable, UnavailableError
from provenance.evidence.from_database import DAMAGED, LedgerView
from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.story import LOST_AFTER_S
from provenance.formats.note import VerifierKey
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorState
from provenance.settings import Settings
from provenance.verify.headers import HeaderSource
from provenance.verify.nodes import Nodes
from provenance.verify.report import Outcome, RunResult, Totals
from provenance.verify.trust import Trust
from provenance.verify.verifier import NOBODY, verify

CHUNK_RUNS: Final = 500
CHUNK_BYTES: Final = 8 * 1024**2
"""Records and receipts of one chunk in memory, and at least one run's."""
_MINED: Final = (AnchorState.CONFIRMED, AnchorState.FINAL)
_DAMAGED: Final = (ProvenanceError, *DAMAGED)
"""What damaged rows can raise while they are read."""


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
        trust: Trust = NOBODY,
        lost_after_s: float = LOST_AFTER_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.totals = Totals()
        self._store, self._key, self._nodes, self._headers = store, key, nodes, headers
        self._clock, self._trust, self._lost_after_s = clock, trust, lost_after_s
        self._where = str(getattr(store, "label", "database"))
        try:
            with store.snapshot() as tx:
                self._runs = [row.run for row in tx.runs()]
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            problem = f"{self._where}: the list of runs cannot be read: {error}"
            raise IntegrityError(problem) from error

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[RunResult]:
        at = 0
        while at < len(self._runs):
            chunk = self._chunk(at)
            at += len(chunk)
            self._look_ahead(chunk.values())
            for run in list(chunk):
                result = self._result(run, chunk.pop(run))
                self.totals.add(result)
                yield result

    def _chunk(self, at: int) -> dict[UUID, RunEvidence | Exception]:
        """The next runs, read in one snapshot, or why a run cannot be read; all that are left
        where there can be no snapshot."""
        chunk: dict[UUID, RunEvidence | Exception] = {}
        size = 0
        try:
            with self._store.snapshot() as tx:
                view = LedgerView(tx, self._key, self._where)
                for run in self._runs[at : at + CHUNK_RUNS]:
                    try:
                        chunk[run] = evidence = view.evidence(run)
                    except _DAMAGED as error:
                        chunk[run] = error
                        if isinstance(error, StoreUnavailable) and not _alive(tx):
                            break
                        continue
                    size += _size(evidence)
                    if size >= CHUNK_BYTES:
                        break
        except _DAMAGED as error:
            return chunk or dict.fromkeys(self._runs[at:], error)
        return chunk

    def _look_ahead(self, chunk: Iterable[RunEvidence | Exception]) -> None:
        if self._nodes is None:
            return
        wanted: dict[str, dict[str, None]] = {}
        for evidence in chunk:
            for anchor in evidence.anchors if isinstance(evidence, RunEvidence) else ():
                if anchor.transaction_id is not None and anchor.state in _MINED:
                    wanted.setdefault(anchor.network, {})[anchor.transaction_id] = None
        self._nodes.look_ahead(wanted)

    def _result(self, run: UUID, evidence: RunEvidence | Exception) -> RunResult:
        try:
            if isinstance(evidence, Exception):
                raise evidence
            report = verify(
                evidence,
                None,
                verifier_key=self._key,
                headers=self._headers,
                nodes=self._nodes,
                trust=self._trust,
                now=self._clock(),
                lost_after_s=self._lost_after_s,
            )
        except _DAMAGED as error:
            outcome: Outcome = "consistent" if isinstance(error, UnavailableError) else "failed"
            return RunResult(run, outcome, None, str(error) or type(error).__name__)
        return RunResult(run, report.outcome, report)


def _size(evidence: RunEvidence) -> int:
    """Bytes of what grows with the run."""
    records = sum(len(record.data or b"") for record in evidence.records)
    return records + sum(len(receipt.data) for receipt in evidence.receipts)


@contextlib.contextmanager
def verify_all(settings: Settings, **options: Unpack[Options]) -> Iterator[AllRuns]:
    """All runs of the configured database on the configured networks. Raises UnknownRunError: there
    is no database yet; StoreUnavailable, ConfigError, MissingExtraError, InputError."""
    source = header_source(options.get("headers", ()), options.get("quorum"))
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(reading.opened_store(settings, "verify --all"))
        networks, nodes = options.get("networks"), None
        if networks is not None and not options.get("offline"):
            nodes = Nodes(networks)
        elif not options.get("offline"):
            nodes = Nodes(*stack.enter_context(reading.opened_networks(settings)))
        key = reading.ledger_key(settings)
        pins = own_trust(settings, key).also(options.get("trust", NOBODY))
        lost = settings.lost_after_s
        yield AllRuns(store, key, nodes, headers=source, trust=pins, lost_after_s=lost)
