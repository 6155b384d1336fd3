"""Publishing: heads that are due become signed, stored, sent transactions.

One pass over one network:

1. of all DUE heads that wait for nothing only the largest is kept; it covers the others, which
   become REPLACED; one that waits for others to do something is HELD
   (:mod:`provenance.anchor.conditions`);
2. rows are claimed: SIGNED ones (a crash came between storing and sending), and the DUE one
   where fewer than ``max_in_flight`` anchors are under way and nothing stops signing;
3. the network is asked who it is, before every send;
4. a DUE head is drafted; then, in ONE transaction, its conditions are asked again, the nonce is
   allocated, the transaction signed, the bytes stored and the row made SIGNED;
5. after the commit the stored bytes are sent, and the row is made SENT. A SIGNED row starts
   here: the SAME bytes, never new ones.

A crash anywhere leaves a row that the next pass, or the confirming one, takes up after the
lease has run out.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from provenance.anchor import pauses
from provenance.anchor.conditions import held, sort_unsigned, waits_for
from provenance.anchor.delivery import AnchorDelivery, Outcome, Pass
from provenance.anchor.outbox import IN_FLIGHT, Trigger
from provenance.errors import NetworkError, NetworkUnavailable
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, AnchorState, SignedVersion, anchor_payload

MAX_IN_FLIGHT: Final[Mapping[str, int]] = {"bitcoin": 1}
"""One on Bitcoin: a second anchor would spend the unconfirmed change of the first."""
DEFAULT_IN_FLIGHT: Final = 16


def publish(delivery: AnchorDelivery, *, max_in_flight: int | None = None) -> Pass:
    """Send what is due on one network. Errors of the network are recorded, not raised.

    Args:
        max_in_flight: Anchors that may be signed or sent and in no block; None for the
            network's own (1 on Bitcoin).

    Raises:
        StoreUnavailable: The database cannot be reached; what was claimed waits for its lease.
    """
    network = delivery.network.name
    most = MAX_IN_FLIGHT.get(network, DEFAULT_IN_FLIGHT) if max_in_flight is None else max_in_flight
    _meet(delivery)
    with delivery.store.transaction() as tx:
        replaced = sort_unsigned(tx, network, delivery.conditions, delivery.clock())
        states = {AnchorState.SIGNED}
        known = tx.network(network)
        paused = pauses.kind_of(known.paused if known else None)
        stopped = paused is not None and paused.stops_signing
        if not stopped and len(tx.anchors(network, IN_FLIGHT)) < most:
            states.add(AnchorState.DUE)
        rows = delivery.claim(tx, states)

    def work(row: AnchorRow) -> Outcome:
        if row.state is AnchorState.SIGNED:
            return delivery.deliver(row, delivery.versions(row))
        return _sign_store_and_send(delivery, row, most)

    return delivery.each(rows, work, replaced)


def _meet(delivery: AnchorDelivery) -> None:
    """Ask a network that was never asked who it is: conditions may be of one chain."""
    with delivery.store.snapshot() as tx:
        known = tx.network(delivery.network.name)
    if delivery.conditions and (known is None or not known.identity):
        with suppress(NetworkError, NetworkUnavailable):
            pauses.check_identity(delivery.store, delivery.network, delivery.clock)


def _sign_store_and_send(delivery: AnchorDelivery, row: AnchorRow, max_in_flight: int) -> Outcome:
    network = delivery.network
    draft = network.draft(anchor_payload(row.root))
    # Where there are no nonces, signing talks to the node, and no transaction may wait for it.
    signed = network.sign(draft, network.next_nonce() if network.uses_nonce else None)
    with delivery.store.transaction() as tx:
        mine = delivery.leased(tx, row)
        if mine is None:
            return Outcome.LOST
        if (reason := waits_for(delivery.conditions, tx, mine)) is not None:
            tx.save_anchor(held(mine, reason, delivery.clock()))
            return Outcome.WAITING
        if len(tx.anchors(network.name, IN_FLIGHT)) >= max_in_flight:
            tx.save_anchor(replace(mine, lease_owner=None, lease_until=None))
            return Outcome.WAITING
        nonce = _nonce(tx, signed)
        if nonce != signed.nonce:
            signed = network.sign(draft, nonce)
        version = tx.add_version(row.id, signed, delivery.clock())
        sign = {"version_id": version.id, "reason": None}
        signed_row = delivery.move(tx, mine, Trigger.SIGN, None, **sign)
    return delivery.deliver(signed_row, [version])


def _nonce(tx: LedgerTx, signed: SignedVersion) -> int | None:
    """The next nonce of the key: past what the node counts and past all that is stored."""
    if signed.nonce is None:
        return None
    highest = tx.highest_nonce(signed.network, signed.key)
    return signed.nonce if highest is None else max(signed.nonce, highest + 1)
