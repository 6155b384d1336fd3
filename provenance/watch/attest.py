"""Attestations of a run on Ethereum: registered, made and read
(:mod:`provenance.chains.ethereum.attestations`).

Life of a scheduled one: the outcome of a verification is appended to the ledger, and in that
transaction its attestation is due; the Ethereum worker takes a nonce and stores it; it sends under
that nonce, and again later, until a block has the nonce's transaction and the contract that
outcome. Where a newer outcome comes in between, it is that one's turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from provenance import files
from provenance.app.report import AGAIN, claim, unreachable
from provenance.app.verify import verify_run, verify_sealed
from provenance.errors import (
    ConfigError,
    InputError,
    IntegrityError,
    MissingExtraError,
    NetworkUnavailable,
    ProvenanceError,
    RejectedError,
    StoreUnavailable,
)
from provenance.formats.tlog.outcome import Outcome
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import DueWork, PendingAttestation, Work
from provenance.settings import Settings
from provenance.verify.catalogue import LEDGER
from provenance.verify.report import Finding, VerificationReport
from provenance.watch.again import attests, every_of

if TYPE_CHECKING:
    from provenance.chains.ethereum.attestations import Attestations, Watched

_KEY: Final = "verification.on_chain.private_key_file"


@contextmanager
def _contract(settings: Settings, address: str, key: str | None = None) -> Iterator[Attestations]:
    try:
        from provenance.chains.ethereum.attestations import Attestations
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "web3", "ethereum") from error
    ethereum = settings.blockchain.ethereum
    if ethereum is None:
        problem = "missing, expected an object with url"
        raise ConfigError("blockchain.ethereum", problem, settings.source)
    contract = Attestations(replace(ethereum, private_key=key or ethereum.private_key), address)
    try:
        yield contract
    finally:
        contract.close()


def register(
    settings: Settings, run: str, address: str, interval: int, verifiers: Sequence[str]
) -> tuple[str, str]:
    """Register a run's newest root with the configured key, once and for all: ``(registrar,
    transaction id)``. Raises as :func:`verify_sealed` and :meth:`Attestations.register`."""
    root = verify_sealed(settings, run).seals[-1].root
    with _contract(settings, address) as contract:
        return contract.sender(), contract.register(root, interval, verifiers)


def attest(settings: Settings, run: str, address: str, registrar: str) -> tuple[str, str]:
    """Verify a run on its networks and attest how it comes out: ``(outcome, transaction id)``.

    Raises:
        NetworkUnavailable: A network did not answer: nothing is attested.
        InputError: The run has no seal. RejectedError: The contract refuses; says why.
    """
    report = verify_run(settings, run)
    if silent := unreachable(report):
        raise NetworkUnavailable(f"{', '.join(silent)}: no answer, so nothing is attested")
    if not report.seals:
        raise InputError(f"run {report.run}: has no seal yet")
    with _contract(settings, address) as contract:
        id = contract.attest(registrar, report.seals[-1].root, report.outcome)
    return report.outcome, id


def attestations(settings: Settings, run: str, address: str, registrar: str) -> Watched:
    """What the contract says of a run's newest root. Raises as :func:`verify_sealed` and
    :meth:`Attestations.watched`."""
    root = verify_sealed(settings, run).seals[-1].root
    with _contract(settings, address) as contract:
        return contract.watched(registrar, root)


def with_attestations(
    settings: Settings, report: VerificationReport, offline: bool
) -> VerificationReport:
    """The report with a note of what the contract of ``verification.on_chain`` says of the newest
    root, or with why that was not checked; as it is where none is configured."""
    on_chain = settings.verification.on_chain
    if on_chain is None or not report.seals:
        return report
    reason = "no node was asked"
    if not offline:
        try:
            with _contract(settings, on_chain.contract) as contract:
                told = contract.find(on_chain.registrar, report.seals[-1].root)
        except ProvenanceError as error:
            reason = str(error)
        else:
            by = f"{on_chain.registrar} at contract {on_chain.contract}"
            problem = told.line if told else f"its root is not registered by {by}"
            note = Finding(LEDGER, "attestations", problem)
            return changed(report, notices=(*report.notices, note))
    line = f"whether its root is attested on time: {reason}"
    return changed(report, not_checked=(*report.not_checked, line))


@dataclass(frozen=True, slots=True)
class Try:
    """What became of an attestation that was due: it was sent in ``transaction``, or cannot be
    because of ``problem``, or the chain has it."""

    run: str
    outcome: str | None
    transaction: str | None = None
    problem: str | None = None
    retryable: bool = False


def due_attestation(settings: Settings, tx: LedgerTx, now: float) -> DueWork | None:
    """An attestation to see to now; None without one, or without a verifier's key."""
    if not attests(settings):
        return None
    return tx.due_work(Work.ATTESTATION, now, 2 * AGAIN.cap_s)


def attest_next(settings: Settings, store: LedgerStore, now: Callable[[], float]) -> Try | None:
    """See to the attestation that is due, without waiting for a block; None where none is.

    Raises:
        StoreUnavailable
    """
    at = now()
    row = claim(store, lambda tx: due_attestation(settings, tx, at), at)
    if row is None:
        return None
    attesting = _Attesting(settings, store, row, now)
    try:
        return attesting.advance()
    except StoreUnavailable:
        raise
    except ProvenanceError as error:
        return attesting.put_off(error)


class _Attesting:
    """One run's attestation; ``pending`` is what the database has of it."""

    def __init__(
        self, settings: Settings, store: LedgerStore, row: DueWork, now: Callable[[], float]
    ) -> None:
        self._settings, self._store, self._now = settings, store, now
        self._row, self._pending = row, PendingAttestation()

    def advance(self) -> Try:
        """Send what the contract lacks, or find that it lacks nothing."""
        on_chain = self._settings.verification.on_chain
        assert on_chain is not None
        self._pending = pending = PendingAttestation.decode(self._row.told)
        with self._store.snapshot() as tx:
            outcome = _newest(tx, self._row)
            every = every_of(self._settings, tx, outcome.run) or 0.0
        run, word = str(outcome.run), outcome.outcome
        key = _verifier_key(self._settings, on_chain.private_key_file)
        with _contract(self._settings, on_chain.contract, key) as contract:
            spent = pending.nonce is not None and contract.spent(pending.nonce)
            told = contract.find(on_chain.registrar, outcome.root)  # behind `spent`, never before
            if spent and told is not None and _states(told, pending, outcome):
                self._finish(outcome.number)
                return Try(run, word)
            if told is not None:
                call = contract.attestation(on_chain.registrar, outcome.root, word)
            else:
                call = self._registration(contract, on_chain.registrar, outcome.root, every)
            (nonce, since), own = contract.reserve(), pending.nonce
            # No block takes one that is ahead: of a node that lied, of a chain that began anew.
            if own is not None and not spent and own <= nonce:
                nonce, since = own, pending.since
            self._save(PendingAttestation(outcome.number, nonce, since), 0, AGAIN.base_s)
            return Try(run, word, contract.send(call, nonce))

    def put_off(self, error: ProvenanceError) -> Try:
        """Keep why it cannot be sent. What time may mend is tried soon, the rest within an hour:
        somebody may have mended that."""
        row, problem = self._row, str(error)
        wait_s = row.next_attempt_at - self._now() if error.retryable else AGAIN.cap_s
        self._save(changed(self._pending, problem=problem), row.attempts, wait_s)
        return Try(str(row.run), None, None, problem, error.retryable)

    def _registration(
        self, contract: Attestations, registrar: str, root: bytes, every: float
    ) -> bytes:
        """With time for one verification that is missed."""
        if (own := contract.sender()).lower() != registrar.lower():
            problem = f"root {root.hex()} is not registered by {registrar}"
            raise RejectedError(f"ethereum: {problem}: provenance contract register")
        return contract.registration(root, round(2 * every), [own])

    def _save(self, pending: PendingAttestation, attempts: int, wait_s: float) -> None:
        self._pending, at = pending, self._now() + wait_s
        told = pending.encode()
        with self._store.transaction() as tx:
            tx.save_work(changed(self._row, told=told, attempts=attempts, next_attempt_at=at))

    def _finish(self, number: int) -> None:
        """It is done, unless there is a newer outcome meanwhile."""
        with self._store.transaction(self._row.run) as tx:
            if _newest(tx, self._row).number == number:
                tx.drop_work(self._row.id)
            else:
                tx.save_work(changed(self._row, told=None, attempts=0, next_attempt_at=self._now()))


def _states(told: Watched, pending: PendingAttestation, outcome: Outcome) -> bool:
    """Whether the contract has the outcome from the transaction under the pending nonce."""
    fresh = told.last is not None and told.last >= pending.since
    return fresh and (told.outcome, pending.number) == (outcome.outcome, outcome.number)


def _newest(tx: LedgerTx, row: DueWork) -> Outcome:
    """Of a run that is to be attested. Raises FormatError; IntegrityError: there is none."""
    rows = tx.outcomes(row.run)
    if not rows:
        raise IntegrityError(f"run {row.run}: the ledger has no outcome of it to attest")
    return Outcome.decode(rows[-1].document)


def _verifier_key(settings: Settings, path: Path | None) -> str:
    """From its file. Raises ConfigError: it cannot be read, or is the key that anchors, whose
    nonces the outbox counts."""
    assert path is not None
    try:
        key = files.read_private(path, 4096).decode("ascii").strip().removeprefix("0x").lower()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(_KEY, f"cannot read {path}: {reason}") from error
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ConfigError(_KEY, f"{path}: found something else, expected 64 hex digits")
    ethereum = settings.blockchain.ethereum
    anchoring = (ethereum and ethereum.private_key) or ""
    if anchoring.removeprefix("0x").lower() == key:
        raise ConfigError(_KEY, f"{path}: found the key that anchors, expected a verifier's own")
    return key
