"""The condition of a network whose key has several owners: k of them have signed the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from provenance.errors import FormatError, IntegrityError
from provenance.ports.store import LedgerTx
from provenance.ports.values import AnchorRow, anchor_payload
from provenance.proofs.multisig import Quorum
from provenance.proofs.multisig.request import (
    BitcoinRequest,
    EthereumRequest,
    SigningRequest,
    decode_request,
    script_of,
)

WAITS: Final = "waits for owners"
"""How what a head lacks begins here."""
MARGIN_S: Final = 3600.0
"""Signatures that expire sooner do not count: a block may take that long."""


@dataclass(frozen=True, slots=True)
class OwnersSign:
    """What :class:`~provenance.anchor.conditions.Condition` says. The signatures are verified anew
    each time: what is stored is believed for nothing.

    Args:
        max_fee_rate: Of Bitcoin, sat/vB.
        clock: Unix seconds.
    """

    quorum: Quorum
    max_fee_rate: float
    clock: Callable[[], float]

    def waits_for(self, tx: LedgerTx, row: AnchorRow) -> str | None:
        """Who has signed, and how many must; None where enough have."""
        needed, network = self.quorum.threshold, row.network
        try:
            request = self._request(tx, row)
            signers = () if request is None else request.signers(self.quorum)
        except (FormatError, IntegrityError) as error:
            return f"{WAITS}: what was signed does not hold: {error}"
        command = f"provenance multisig request {network}"
        if request is None:
            return f"{WAITS}: 0 of {needed} signed: {command}"
        if self._expired(request):
            return f"{WAITS}: what they signed expires: {command} --again"
        if len(signers) >= needed:
            return None
        names = f" ({', '.join(signers)})" if signers else ""
        return f"{WAITS}: {len(signers)} of {needed} signed{names}"

    def is_begun(self, tx: LedgerTx, row: AnchorRow) -> bool:
        """Whether one of them signed, and it has not expired."""
        try:
            request = self._request(tx, row)
            signed = request is not None and bool(request.signers(self.quorum))
        except (FormatError, IntegrityError):
            return False
        return signed and request is not None and not self._expired(request)

    def _request(self, tx: LedgerTx, row: AnchorRow) -> SigningRequest | None:
        document = tx.signing_request(row.network, row.root)
        if document is None:
            return None
        request = decode_request(document, f"anchor {row.id}: signing request")
        if (request.network, request.root) != (row.network, row.root):
            raise IntegrityError(f"anchor {row.id}: the signing request is of another head")
        if isinstance(request, BitcoinRequest):
            payload, script = anchor_payload(row.root), script_of(self.quorum)
            request.psbt.check(payload, script, self.max_fee_rate)
        return request

    def _expired(self, request: SigningRequest) -> bool:
        if not isinstance(request, EthereumRequest):
            return False
        return request.store.deadline < self.clock() + MARGIN_S
