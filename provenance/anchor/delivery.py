"""Delivery: what publishing and confirming share about one network.

It claims rows under a lease, sends stored bytes, raises fees, and turns every error of a
network into what becomes of the row. Calls to the network happen outside transactions,
with one exception: :meth:`Network.sign` where there are nonces, which talks to nobody.

Before each write the row is read again: where the lease is lost or the state has moved,
somebody else does the work, and ours is dropped. Bytes that are stored are never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from provenance.anchor import pauses
from provenance.anchor.conditions import Condition
from provenance.anchor.outbox import ACTIVE, IN_FLIGHT, Trigger, advance, delay
from provenance.anchor.pauses import Pause
from provenance.errors import (
    FeeTooLowError,
    InsufficientFundsError,
    IntegrityError,
    LyingNodeError,
    NetworkError,
    NetworkUnavailable,
    NonceUsedError,
    ProvenanceError,
    RejectedError,
    StoreUnavailable,
    WrongNetworkError,
)
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, Place, VersionRow, anchor_payload
from provenance.settings import RetrySettings

ROWS: Final = 16
"""How many one pass claims."""
MAX_LOOK_S: Final = 300.0
"""No row is scheduled further ahead than this or the backoff's cap."""
_PAUSED_ATTEMPT: Final = 5
_KNOWN: Final = (Place.MINED, Place.PENDING, Place.FAILED)
_PAUSES: Final[Mapping[type[ProvenanceError], Pause]] = {
    WrongNetworkError: Pause.WRONG_NETWORK,
    InsufficientFundsError: Pause.BALANCE,
}


class Outcome(StrEnum):
    """What became of a row in one pass."""

    SENT = "sent"
    BUMPED = "bumped"
    WAITING = "waiting"
    CONFIRMED = "confirmed"
    FINAL = "final"
    REORGED = "reorged"
    HELD = "held"
    """Something is in the way; the row's reason says what."""
    FAILED = "failed"
    LOST = "lost"
    """Somebody else has the row."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over a network did, by anchor id."""

    outcomes: Mapping[int, Outcome]
    paused: str | None
    """Why nothing new is signed, as remembered after the pass."""
    replaced: tuple[int, ...] = ()

    def having(self, outcome: Outcome) -> tuple[int, ...]:
        """Ids of the anchors with this outcome."""
        return tuple(id for id, outcome_of in self.outcomes.items() if outcome_of is outcome)


@dataclass(frozen=True, slots=True)
class AnchorDelivery:
    """Works for one network under one lease owner, who MUST be unique to this call.

    Args:
        clock: Unix time in seconds; may jump.
        lease_s: Longest time one pass may hold a row.
        rng: Uniform in ``[0, 1)``, for the backoff.
        conditions: What each head must meet before it is signed.
    """

    store: LedgerStore
    network: Network
    clock: Callable[[], float]
    owner: str
    lease_s: float
    retry: RetrySettings
    rng: Callable[[], float]
    conditions: tuple[Condition, ...] = ()

    # --- leases ---------------------------------------------------------------------------

    def claim(self, tx: LedgerTx, states: Iterable[AnchorState]) -> Sequence[AnchorRow]:
        """Lease due rows, after rows that a clock jump threw out of reach are called back."""
        now = self.clock()
        horizon = 2 * max(self.retry.cap_s, MAX_LOOK_S, self.lease_s)
        for row in tx.anchors(self.network.name, ACTIVE):
            if row.lease_until is not None and row.lease_until > now + horizon:
                row = replace(row, lease_owner=None, lease_until=None, next_attempt_at=now)
                tx.save_anchor(row)
            elif row.next_attempt_at > now + horizon:
                tx.save_anchor(replace(row, next_attempt_at=now))
        return tx.claim(self.network.name, states, self.owner, now, self.lease_s, ROWS)

    def leased(
        self, tx: LedgerTx, row: AnchorRow, states: Collection[AnchorState] = ()
    ) -> AnchorRow | None:
        """The row as it is now; None where it is not ours any more, or in none of ``states``
        (the one it was in where none are given)."""
        now = tx.anchor(row.id)
        if now is None or now.lease_owner != self.owner:
            return None
        return now if now.state in (states or (row.state,)) else None

    def write(
        self,
        row: AnchorRow,
        work: Callable[[LedgerTx, AnchorRow], Outcome],
        states: Collection[AnchorState] = (),
    ) -> Outcome:
        """What ``work`` makes of the :meth:`leased` row in one transaction; LOST without it."""
        with self.store.transaction() as tx:
            mine = self.leased(tx, row, states)
            return Outcome.LOST if mine is None else work(tx, mine)

    def move(
        self, tx: LedgerTx, row: AnchorRow, trigger: Trigger, wait_s: float | None, **changes: Any
    ) -> AnchorRow:
        """Advance and save; with ``wait_s`` the lease ends and the row is due after it.

        ``updated_at`` is when the row last got on: a look or a failure leaves it.
        """
        now = self.clock()
        if wait_s is not None:
            changes |= {
                "lease_owner": None,
                "lease_until": None,
                "next_attempt_at": now + min(wait_s, max(MAX_LOOK_S, self.retry.cap_s)),
            }
        moved = advance(row, trigger, **changes)
        if moved.state is not row.state or trigger is Trigger.BUMP:
            moved = replace(moved, updated_at=now)
        tx.save_anchor(moved)
        return moved

    def versions(self, row: AnchorRow) -> Sequence[VersionRow]:
        """Stored versions of a row that has some, oldest first. Raises IntegrityError: it has none,
        though its state says that bytes were stored."""
        with self.store.snapshot() as tx:
            versions = tx.versions(row.id)
        if not versions:
            raise IntegrityError(f"anchor {row.id} is {row.state.value} without signed bytes")
        return versions

    def release(self, rows: Iterable[AnchorRow]) -> None:
        """Give back rows that were claimed and not touched."""
        with self.store.transaction() as tx:
            for row in rows:
                if (mine := self.leased(tx, row)) is not None:
                    tx.save_anchor(replace(mine, lease_owner=None, lease_until=None))

    def each(
        self,
        rows: Sequence[AnchorRow],
        work: Callable[[AnchorRow], Outcome],
        replaced: tuple[int, ...] = (),
    ) -> Pass:
        """Work through claimed rows, the network's identity checked before each; stop where
        it is down or the lease is over."""
        outcomes: dict[int, Outcome] = {}
        for position, row in enumerate(rows):
            if row.lease_until is not None and self.clock() >= row.lease_until:
                self.release(rows[position:])
                break
            try:
                pauses.check_identity(self.store, self.network, self.clock)
                outcomes[row.id] = work(row)
            except NetworkUnavailable as error:
                outcomes[row.id] = self.refuse(row, error)
                self.release(rows[position + 1 :])
                break
            except StoreUnavailable:
                raise
            except ProvenanceError as error:
                outcomes[row.id] = self.refuse(row, error)
        with self.store.snapshot() as tx:
            known = tx.network(self.network.name)
        return Pass(outcomes, known.paused if known else None, replaced)

    # --- errors ---------------------------------------------------------------------------

    def refuse(self, row: AnchorRow, error: ProvenanceError) -> Outcome:
        """What an error means for a row: held and tried again, or FAILED.

        Only a row without signed bytes fails by itself; bytes that exist may be mined, and
        the nonce they hold must be filled.
        """
        paused = _PAUSES.get(type(error))
        reason = str(error)

        def work(tx: LedgerTx, mine: AnchorRow) -> Outcome:
            if paused is not None:
                pauses.pause(tx, self.network.name, paused, reason, self.clock())
                return self._hold(tx, mine, reason, count=False)
            if mine.state is AnchorState.DUE and self._hopeless(mine, error):
                self.move(tx, mine, Trigger.FAIL, 0.0, reason=reason)
                return Outcome.FAILED
            return self._hold(tx, mine, reason)

        return self.write(row, work, ACTIVE)

    def hold(self, row: AnchorRow, reason: str, wait_s: float | None = None) -> Outcome:
        """Keep the state, save the reason, come back after ``wait_s`` (None: the backoff)."""
        count = wait_s is None
        return self.write(row, lambda tx, mine: self._hold(tx, mine, reason, count, wait_s))

    def halt(self, row: AnchorRow, kind: Pause, detail: str) -> Outcome:
        """Pause the network because of this row, and hold the row with the same words."""

        def work(tx: LedgerTx, mine: AnchorRow) -> Outcome:
            text = f"anchor {row.id}: {detail}"
            reason = pauses.pause(tx, self.network.name, kind, text, self.clock())
            return self._hold(tx, mine, reason, count=False)

        return self.write(row, work, ACTIVE)

    def fail(self, row: AnchorRow, reason: str) -> Outcome:
        """Permanent."""

        def work(tx: LedgerTx, mine: AnchorRow) -> Outcome:
            self.move(tx, mine, Trigger.FAIL, 0.0, reason=reason)
            return Outcome.FAILED

        return self.write(row, work)

    def _hold(
        self,
        tx: LedgerTx,
        mine: AnchorRow,
        reason: str,
        count: bool = True,
        wait_s: float | None = None,
    ) -> Outcome:
        attempt = mine.attempts + 1 if count else max(mine.attempts, _PAUSED_ATTEMPT)
        if wait_s is None:
            wait_s = delay(attempt, self.retry, self.rng)
        attempts = attempt if count else mine.attempts
        self.move(tx, mine, Trigger.RETRY, wait_s, reason=reason, attempts=attempts)
        return Outcome.HELD

    def _hopeless(self, row: AnchorRow, error: ProvenanceError) -> bool:
        if isinstance(error, NetworkUnavailable):
            return 0 < self.retry.attempts <= row.attempts + 1
        final = isinstance(error, NetworkError) and not error.retryable
        return final and not isinstance(error, LyingNodeError | NonceUsedError)

    # --- sending --------------------------------------------------------------------------

    def deliver(
        self,
        row: AnchorRow,
        versions: Sequence[VersionRow],
        first: VersionRow | None = None,
        wait_s: float = 0.0,
    ) -> Outcome:
        """Send stored bytes: ``first``, else the newest; then the others, newest first.

        A version that the network does not take for its fee or form leads to the next one;
        where none is left, a version with a higher fee is made.

        Raises:
            NetworkUnavailable, WrongNetworkError, InsufficientFundsError, LyingNodeError:
                For :meth:`refuse`.
        """
        first = first or versions[-1]
        refused: NetworkError | None = None
        for version in (first, *(v for v in reversed(versions) if v.id != first.id)):
            try:
                self.network.broadcast(version.version)
            except (FeeTooLowError, RejectedError) as error:
                refused = refused or error
            except NonceUsedError as error:
                return self._spent(row, versions, error)
            else:
                return self.record_sent(row, version, wait_s)
        assert refused is not None
        if isinstance(refused, FeeTooLowError):
            return self.bump(row, versions, str(refused))
        known = self._known(versions)
        if known is not None:
            return self.record_sent(row, known, wait_s)
        if versions[-1].version.nonce is None:
            return self.fail(row, str(refused))
        return self.bump(row, versions, str(refused), blocking=True)

    def record_sent(self, row: AnchorRow, version: VersionRow, wait_s: float = 0.0) -> Outcome:
        """The network has the version: a fact, whoever holds the lease by now."""
        with self.store.transaction() as tx:
            tx.mark_sent(version.id, self.clock())
            pauses.lift(tx, self.network.name, Pause.BALANCE)
            pauses.lift(tx, self.network.name, Pause.BLOCKED, anchor_id=row.id)
            now = tx.anchor(row.id)
            if now is None or now.state not in IN_FLIGHT:
                return Outcome.LOST
            wait = wait_s if now.lease_owner == self.owner else None
            again = now.attempts + 1 if row.state is AnchorState.SENT else 0
            sent = {"version_id": version.id, "reason": None, "attempts": again}
            self.move(tx, now, Trigger.SEND, wait, **sent)
        return Outcome.SENT

    def bump(
        self, row: AnchorRow, versions: Sequence[VersionRow], why: str, blocking: bool = False
    ) -> Outcome:
        """Make, store and send a version with a higher fee on the same nonce or inputs.

        Args:
            blocking: No version was ever accepted, so that the nonce is a hole: where this
                fails for good too, the network is paused.
        """
        try:
            bumped = self._bumped(row, versions, why)
            if bumped is None:
                return Outcome.LOST
            self.network.broadcast(bumped.version)
        except NonceUsedError as error:
            return self._spent(row, self.versions(row), error)
        except NetworkUnavailable:
            raise
        except NetworkError as error:
            if type(error) not in _PAUSES and not error.retryable and blocking:
                return self.halt(row, Pause.BLOCKED, str(error))
            return self.refuse(row, error)
        sent = self.record_sent(row, bumped)
        return Outcome.BUMPED if sent is Outcome.SENT else sent

    def _bumped(
        self, row: AnchorRow, versions: Sequence[VersionRow], why: str
    ) -> VersionRow | None:
        pauses.check_identity(self.store, self.network, self.clock)
        newest = versions[-1]
        # A wallet can only replace what its node has seen.
        replaces = next((v for v in reversed(versions) if v.sent_at is not None), newest).version
        payload, nonce = anchor_payload(row.root), newest.version.nonce
        draft = self.network.draft(payload, replaces=replaces)
        signed = None if self.network.uses_nonce else self.network.sign(draft, None)
        with self.store.transaction() as tx:
            mine = self.leased(tx, row)
            if mine is None:
                return None
            if signed is None:
                signed = self.network.sign(draft, nonce)
            bumped = tx.add_version(row.id, signed, self.clock())
            self.move(tx, mine, Trigger.BUMP, None, version_id=bumped.id, reason=why)
            return bumped

    def _spent(
        self, row: AnchorRow, versions: Sequence[VersionRow], error: NetworkError
    ) -> Outcome:
        """The nonce or input is spent: by one of our versions, or by somebody else."""
        known = self._known(versions)
        if known is not None:
            return self.record_sent(row, known)
        return self.halt(row, Pause.SHARED_KEY, f"{error}; none of our versions spent it")

    def _known(self, versions: Sequence[VersionRow]) -> VersionRow | None:
        for version in reversed(versions):
            if self.network.observe(version.version).place in _KNOWN:
                return version
        return None


def stranded_networks(tx: LedgerTx, now: float, lease_s: float) -> frozenset[str]:
    """Networks with rows that lie hours ahead of a clock that was set back.

    No row is due there, so nobody is rung; :meth:`AnchorDelivery.claim` calls such rows back.
    """
    horizon = now + 2 * max(MAX_LOOK_S, lease_s)
    return frozenset(
        row.network
        for network in tx.anchored_networks()
        for row in tx.anchors(network, ACTIVE)
        if max(row.next_attempt_at, row.lease_until or 0.0) > horizon
    )
