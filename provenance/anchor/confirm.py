"""Confirming: what became of the transactions that were sent.

One pass over one network claims the rows that are due for a look, asks who the network is,
and observes every stored version of each row: any of them counts, they carry one root.

====================  =======================================================================
the network says      the row
====================  =======================================================================
mined, right root     CONFIRMED, and FINAL when deep enough; receipts are made
mined, another root   refused: held with the reason, never confirmed
pending               SENT; after ``fee_bump_after_s`` a version with a higher fee is made,
                      stored and sent, up to the network's cap
unknown               the same bytes are sent again; after ``fee_bump_after_s`` bumped as well
gone after CONFIRMED  REORGED: receipts are withdrawn, the same bytes are sent again
failed in a block     FAILED once that block is deep enough
spent by another      the network is paused, the key or inputs seem shared; FAILED once the
                      other transaction is deep enough
====================  =======================================================================

A height that goes down is no error: a node may lag, and blocks may be replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from provenance.anchor import pauses, receipts
from provenance.anchor.delivery import AnchorDelivery, Outcome, Pass
from provenance.anchor.outbox import ACTIVE, UNSIGNED, Trigger, delay
from provenance.anchor.pauses import Pause
from provenance.errors import (
    FeeTooLowError,
    LyingNodeError,
    NetworkError,
    NonceUsedError,
    RejectedError,
)
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, Observation, Place, VersionRow

LOOKED_AT: Final = ACTIVE - UNSIGNED
_SLOWEST: Final = 6
"""A deep block is looked at this many times less often than a pending transaction."""


@dataclass(frozen=True, slots=True)
class _Look:
    """All versions of one row as the network has them; ``lie`` is an answer not believed."""

    seen: tuple[tuple[VersionRow, Observation], ...]
    lie: str | None

    def at(self, *places: Place) -> list[tuple[VersionRow, Observation]]:
        return [pair for pair in self.seen if pair[1].place in places]


def confirm(
    delivery: AnchorDelivery, *, poll_s: float = 5.0, fee_bump_after_s: float = 600.0
) -> Pass:
    """Look at what is under way on one network. Errors of the network are recorded.

    Args:
        poll_s: Seconds between looks at a pending transaction.
        fee_bump_after_s: Seconds without a block before the fee is raised.

    Raises:
        StoreUnavailable: The database cannot be reached; what was claimed waits for its lease.
    """
    with delivery.store.transaction() as tx:
        rows = delivery.claim(tx, LOOKED_AT)
    return delivery.each(rows, _Confirmer(delivery, poll_s, fee_bump_after_s).work)


@dataclass(frozen=True, slots=True)
class _Confirmer:
    delivery: AnchorDelivery
    poll_s: float
    fee_bump_after_s: float

    def work(self, row: AnchorRow) -> Outcome:
        """One row, whatever its state."""
        delivery = self.delivery
        versions = delivery.versions(row)
        look = self._observe(row, versions)
        if mined := look.at(Place.MINED):
            return self._mined(row, *mined[0])
        if look.lie is not None:
            return delivery.hold(row, look.lie)
        if row.state is not AnchorState.CONFIRMED:
            return self._not_mined(row, versions, look)
        withdrawn = self._withdraw(row)
        if withdrawn is None:
            return Outcome.LOST
        try:
            self._not_mined(withdrawn, versions, look)
        except NetworkError as error:
            delivery.refuse(withdrawn, error)
        return Outcome.REORGED

    def _observe(self, row: AnchorRow, versions: Sequence[VersionRow]) -> _Look:
        """The version that counted last first, then the newest; stops at the mined one."""
        seen: list[tuple[VersionRow, Observation]] = []
        lie = None
        for version in sorted(versions, key=lambda v: (v.id != row.version_id, -v.id)):
            try:
                observed = self.delivery.network.observe(version.version)
            except LyingNodeError as error:
                lie = str(error)
                continue
            if observed.place is Place.MINED and observed.root != row.root:
                found = observed.root.hex() if observed.root else "no root"
                lie = (
                    f"{row.network}: {version.version.transaction_id} carries {found}, "
                    f"expected {row.root.hex()}"
                )
                continue
            seen.append((version, observed))
            if observed.place is Place.MINED:
                break
        return _Look(tuple(seen), lie)

    # --- in a block -----------------------------------------------------------------------

    def _mined(self, row: AnchorRow, version: VersionRow, seen: Observation) -> Outcome:
        delivery = self.delivery
        fresh = row.state is not AnchorState.CONFIRMED
        made = None
        if fresh or seen.final or self._block_moved(row, version, seen):
            evidence = delivery.network.evidence(version.version, seen)
            with delivery.store.snapshot() as tx:
                now = delivery.clock()
                made = receipts.make_receipts(tx, row, version, seen, evidence, now)
        wait_s = self.poll_s * min(1 + seen.depth // 2, _SLOWEST)
        stated = version.version.detail.get("fee")  # of a Bitcoin transaction, known when signed
        paid = stated if seen.paid is None and isinstance(stated, int) else seen.paid
        where = {
            "version_id": version.id,
            "height": seen.height,
            "depth": seen.depth,
            "block_time": seen.block_time,
            "paid": paid,
            "reason": None,
            "attempts": 0,
        }

        def write(tx: LedgerTx, mine: AnchorRow) -> Outcome:
            if fresh:
                tx.mark_sent(version.id, delivery.clock())
                mine = delivery.move(tx, mine, Trigger.MINE, None, **where)
            trigger = Trigger.FINALISE if seen.final else Trigger.LOOK
            delivery.move(tx, mine, trigger, wait_s, **where)
            if made is not None:
                tx.delete_receipts(row.id)
                tx.add_receipts(made)
            pauses.lift(tx, row.network, Pause.SHARED_KEY, Pause.BLOCKED, anchor_id=row.id)
            pauses.lift(tx, row.network, Pause.BALANCE)
            if seen.final:
                return Outcome.FINAL
            return Outcome.CONFIRMED if fresh else Outcome.WAITING

        return delivery.write(row, write)

    def _block_moved(self, row: AnchorRow, version: VersionRow, seen: Observation) -> bool:
        if (row.version_id, row.height) != (version.id, seen.height):
            return True
        with self.delivery.store.snapshot() as tx:
            block = receipts.attested_block(tx, row)
            return block != (seen.block_hash or "") and bool(receipts.owed(tx, row, final=False))

    def _withdraw(self, row: AnchorRow) -> AnchorRow | None:
        delivery = self.delivery
        with delivery.store.transaction() as tx:
            mine = delivery.leased(tx, row)
            if mine is None:
                return None
            tx.delete_receipts(row.id)
            gone = {"height": None, "depth": 0, "block_time": None, "paid": None}
            reason = f"the block at height {row.height} is gone"
            return delivery.move(tx, mine, Trigger.REORG, None, reason=reason, **gone)

    # --- in no block ----------------------------------------------------------------------

    def _not_mined(self, row: AnchorRow, versions: Sequence[VersionRow], look: _Look) -> Outcome:
        delivery = self.delivery
        if failed := look.at(Place.FAILED):
            version, seen = failed[0]
            reason = f"{version.version.transaction_id} is in a block and failed"
            if self._deep(seen):
                return delivery.fail(row, reason)
            return delivery.hold(row, reason, self.poll_s)
        conflicted = look.at(Place.CONFLICTED)
        if len(conflicted) == len(look.seen):
            return self._conflicted(row, conflicted)
        pending = look.at(Place.PENDING)
        counted = next((v for v in versions if v.id == row.version_id), None)
        if row.state is AnchorState.SENT and not pending and self._stuck(row, versions[-1]):
            # Forgotten, and waiting for too long: a node may evict what pays too little before
            # every look. Where the fee cannot be raised, the same bytes are at least back.
            with contextlib.suppress(FeeTooLowError, RejectedError, NonceUsedError):
                delivery.network.broadcast(versions[-1].version)
            return delivery.bump(row, versions, "no block took it in time")
        if row.state is AnchorState.REORGED or not pending:
            again = row.attempts if row.state is AnchorState.SENT else 0
            wait_s = self.poll_s
            if again:
                wait_s += delay(again, delivery.retry, delivery.rng)
            return delivery.deliver(row, versions, counted, wait_s)
        if row.state is AnchorState.SIGNED:
            return delivery.record_sent(row, pending[0][0], self.poll_s)
        if self._stuck(row, versions[-1]):
            return delivery.bump(row, versions, "no block took it in time")
        if versions[-1].sent_at is None:
            return delivery.deliver(row, versions, versions[-1], self.poll_s)

        def write(tx: LedgerTx, mine: AnchorRow) -> Outcome:
            delivery.move(tx, mine, Trigger.LOOK, self.poll_s, reason=None, attempts=0)
            return Outcome.WAITING

        return delivery.write(row, write)

    def _conflicted(
        self, row: AnchorRow, conflicted: list[tuple[VersionRow, Observation]]
    ) -> Outcome:
        delivery = self.delivery
        reason = "another transaction spent its nonce or inputs; the key seems to be shared"
        if all(self._deep(seen) for _, seen in conflicted):
            with delivery.store.transaction() as tx:
                text = f"anchor {row.id}: {reason}"
                pauses.pause(tx, row.network, Pause.SHARED_KEY, text, delivery.clock())
            return delivery.fail(row, reason)
        return delivery.halt(row, Pause.SHARED_KEY, reason)

    def _deep(self, seen: Observation) -> bool:
        return seen.final or seen.depth >= self.delivery.network.confirmations

    def _stuck(self, row: AnchorRow, newest: VersionRow) -> bool:
        """No progress for ``fee_bump_after_s``; a clock that jumped back counts as well."""
        waited = abs(self.delivery.clock() - row.updated_at)
        return newest.version.fee > 0 and waited >= self.fee_bump_after_s
