"""Which of several owners signed an anchor, and what shows how many had to.

The signatures are the transaction's own (:mod:`provenance.proofs.multisig`). How many were needed,
and of whom, an Ethereum transaction does not say: the contract does, to a node, or the reader, who
pinned the owners. A Bitcoin transaction does, together with those that it spends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from provenance.errors import ProofError
from provenance.formats.fields import Fields
from provenance.formats.record import Json
from provenance.proofs.ethereum import parse_transaction
from provenance.proofs.multisig import Quorum, bitcoin, ethereum
from provenance.verify.trust import PinnedOwners

SPENT = "spent"
"""Of Bitcoin's evidence: the transactions that made the outputs that are spent, in hex."""
MAX_SPENT = 64


@dataclass(frozen=True, slots=True)
class Cosigners:
    """The owners who signed an anchor: addresses or public keys, lower-case hex, ascending.

    Attributes:
        quorum: Who had to sign; None where nothing shows it.
        shown_by: What shows that.
    """

    signers: tuple[str, ...]
    quorum: Quorum | None = None
    shown_by: str | None = None

    @property
    def line(self) -> str:
        """For people."""
        if self.quorum is None:
            return f"signed by {len(self.signers)} owners of a contract that nobody pinned"
        signed = len(set(self.signers) & set(self.quorum.owners))
        needed = f"{self.quorum.threshold} needed"
        return f"signed by {signed} of {len(self.quorum.owners)} owners, {needed} ({self.shown_by})"


def cosigners_of(network: str, evidence: Mapping[str, Json]) -> Cosigners | None:
    """From a receipt's evidence; None where one key signed. Raises FormatError, ProofError: the
    signatures do not hold."""
    fields = Fields(evidence, "evidence")
    if network == "ethereum":
        raw, contract = fields.object("transaction").text("raw"), evidence.get("contract")
        return _of_ethereum(raw, contract if isinstance(contract, str) else None)
    if network == "bitcoin" and SPENT in evidence:
        spent = fields.items(SPENT, lambda items, at: items.text(at))
        return _of_bitcoin(fields.text("transaction"), spent[: MAX_SPENT + 1])
    return None


@lru_cache(maxsize=1024)
def _of_ethereum(raw: str, contract: str | None) -> Cosigners | None:
    """One transaction anchors many seals."""
    sent = parse_transaction(_bytes(raw))
    if contract is None or sent.to is None or sent.calldata[:4] != ethereum.STORE_SIGNED:
        return None
    request, signatures = ethereum.read_call(sent.chain_id, sent.to, sent.calldata)
    return Cosigners(tuple("0x" + signer.hex() for signer in request.signers(signatures)))


@lru_cache(maxsize=1024)
def _of_bitcoin(raw: str, spent: tuple[str, ...]) -> Cosigners:
    if len(spent) > MAX_SPENT:
        raise ProofError(f"evidence.{SPENT}: more than {MAX_SPENT} transactions")
    script, signers = bitcoin.check_spend(_bytes(raw), [_bytes(each) for each in spent])
    quorum = Quorum(script.threshold, tuple(key.hex() for key in script.keys))
    by = "by the output that it spends"
    return Cosigners(tuple(key.hex() for key in signers), quorum, by)


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise ProofError(f"evidence: found {text[:20]!r}, expected hex") from None


def pinned(
    found: Cosigners | None, pin: PinnedOwners | None
) -> tuple[Cosigners | None, str | None]:
    """What was found with the owners that the reader pinned, and what they lack; None where
    enough of them signed, or none are pinned."""
    if pin is None:
        return found, None
    signers = () if found is None else found.signers
    shown = Cosigners(signers, pin.quorum, f"pinned: {pin.by}")
    enough = len(set(signers) & set(pin.quorum.owners)) >= pin.quorum.threshold
    return (shown if signers else None), None if enough else (
        shown.line if signers else f"none of the owners signed that {pin.by} names"
    )
