"""The gate of a network: is it the chain it was, and is anything in the way of sending?

``NetworkRow.identity`` remembers what the network said of itself at first contact;
:data:`PINNED` fields must never differ afterwards. ``NetworkRow.paused`` is the reason why
nothing new is signed, and begins with its kind, a :class:`Pause`. A pause never fails an anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Final

from provenance.anchor.outbox import ACTIVE, IN_FLIGHT, Trigger, advance
from provenance.errors import WrongNetworkError
from provenance.ports.network import Network
from provenance.ports.store import LedgerStore, LedgerTx
from provenance.ports.values import CHAIN_FIELDS, FORK, NetworkRow

PINNED: Final = (*CHAIN_FIELDS, "network")
REFRESH_S: Final = 60.0
"""How old ``checked_at`` may grow before it is written again."""


class Pause(StrEnum):
    """Why a network is paused; the value begins the text in ``NetworkRow.paused``."""

    WRONG_NETWORK = "wrong network"
    """Another chain answers; ends when the right one does."""
    BALANCE = "balance"
    """Too low to pay; ends when an anchor is accepted again."""
    SHARED_KEY = "shared key"
    """Somebody else spends our nonces or inputs; ends when the anchor it names turns out to be
    mined, or by an operator (:func:`resume`)."""
    BLOCKED = "blocked"
    """The nonce of an anchor cannot be filled, so that later ones would wait behind it for ever;
    ends when it is accepted, or by an operator."""
    FORK = FORK
    """The network shows a root under our key that the database does not know: it is older than what
    was anchored, or another deployment uses the key; ends when the ledger is recovered, or by an
    operator."""

    @property
    def stops_signing(self) -> bool:
        """True where trying again would make things worse."""
        return self in (Pause.SHARED_KEY, Pause.BLOCKED, Pause.FORK)


def kind_of(reason: str | None) -> Pause | None:
    """The kind that a ``paused`` text begins with; an unknown text is taken as ``blocked``."""
    if reason is None:
        return None
    try:
        return Pause(reason.partition(":")[0])
    except ValueError:
        return Pause.BLOCKED


def pause(tx: LedgerTx, network: str, kind: Pause, detail: str, now: float) -> str:
    """Pause a network; a pause that stops signing is not hidden by one that does not."""
    known = tx.network(network) or NetworkRow(network, {}, None, now)
    existing = kind_of(known.paused)
    reason = f"{kind.value}: {detail}"
    if existing is not None and existing.stops_signing and not kind.stops_signing:
        return reason
    if known.paused != reason:
        tx.save_network(replace(known, paused=reason))
    return reason


def lift(tx: LedgerTx, network: str, *kinds: Pause, anchor_id: int | None = None) -> None:
    """End a pause of one of these kinds; with ``anchor_id``, only one that names it."""
    known = tx.network(network)
    if known is None or known.paused is None or kind_of(known.paused) not in kinds:
        return
    detail = known.paused.partition(": ")[2]
    if anchor_id is None or detail.startswith(f"anchor {anchor_id}:"):
        tx.save_network(replace(known, paused=None))


def resume(store: LedgerStore, network: str, now: float) -> tuple[int, ...]:
    """An operator's word that the cause of a pause is gone.

    Anchors that were held for a spent nonce or input can never be mined; they become FAILED
    (a later head covers them). All others are due at once.

    Returns:
        The ids that became FAILED.
    """
    failed = []
    with store.transaction() as tx:
        known = tx.network(network)
        if known is None or known.paused is None:
            return ()
        for row in tx.anchors(network, ACTIVE):
            if kind_of(row.reason) is Pause.SHARED_KEY and row.state in IN_FLIGHT:
                failed.append(row.id)
                reason = f"given up, the next head covers it: {row.reason}"
                row = advance(row, Trigger.FAIL, reason=reason)
            tx.save_anchor(replace(row, next_attempt_at=now, lease_owner=None, lease_until=None))
        tx.save_network(replace(known, paused=None))
    return tuple(failed)


def check_identity(store: LedgerStore, network: Network, clock: Callable[[], float]) -> None:
    """Ask the network who it is and compare with what it said at first contact. Raises
    WrongNetworkError: it differs; the network is paused."""
    try:
        identity = network.identity()
        fields = dict(identity.fields)
        with store.snapshot() as tx:
            known = tx.network(network.name)
        for name in PINNED:
            before = known.identity.get(name) if known else None
            if before is not None and fields.get(name) != before:
                raise WrongNetworkError(
                    f"{network.name}: {name} was {before} at first contact, is {fields.get(name)}"
                )
    except WrongNetworkError as error:
        with store.transaction() as tx:
            pause(tx, network.name, Pause.WRONG_NETWORK, str(error), clock())
        raise
    now = clock()
    if known is not None and dict(known.identity) == fields:
        lifted = kind_of(known.paused) is Pause.WRONG_NETWORK
        if not lifted and abs(now - known.checked_at) < REFRESH_S:
            return
    with store.transaction() as tx:
        lift(tx, network.name, Pause.WRONG_NETWORK)
        known = tx.network(network.name)
        known = known or NetworkRow(network.name, {}, None, now)
        tx.save_network(replace(known, identity=fields, checked_at=now))
