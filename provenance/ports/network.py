"""A network: one place where a ledger head can be anchored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from provenance.errors import RejectedError
from provenance.formats.record import Json
from provenance.ports.values import Draft, Identity, Observation, SignedVersion, payload_root
from provenance.proofs.beacon import Beacon

if TYPE_CHECKING:
    from provenance.proofs.multisig.request import SigningRequest


Requests: TypeAlias = Callable[[bytes], "SigningRequest | None"]
"""What the owners of a key were asked to sign for a root, with the signatures there are."""


class Network(Protocol):
    """One place where a head can be anchored.

    Life of an anchor: ``identity`` is checked; ``draft`` asks the node for fees or inputs;
    ``sign`` gives the bytes and their transaction id; the caller STORES them; ``broadcast``
    sends them, as often as needed; ``observe`` tells the depth until it is final;
    ``evidence`` collects what an offline verifier needs.

    Methods raise NetworkUnavailable (retryable) or a permanent NetworkError, and nothing
    else. Every call to a node has a deadline.
    """

    @property
    def name(self) -> str:
        """As in the settings: ``ethereum``, ``bitcoin``, ``ipfs``, ``local``."""

    @property
    def confirmations(self) -> int:
        """Blocks, the transaction's own included, after which an anchor is final."""

    @property
    def uses_nonce(self) -> bool:
        """Whether versions are numbered by the sender (Ethereum), so that ``sign`` is local."""
        return False

    def identity(self) -> Identity:
        """Ask the node who it is. Raises WrongNetworkError where the configuration differs."""

    def next_nonce(self) -> int:
        """The sender's next nonce as the node sees it, pending included; 0 without nonces."""
        return 0

    def draft(self, payload: bytes, replaces: SignedVersion | None = None) -> Draft:
        """Prepare an anchor of the 36-byte payload; with ``replaces``, a version with a
        higher fee that spends the same nonce or inputs. Raises FeeTooLowError where the fee
        cap is reached, InsufficientFundsError where the balance is too low."""

    def sign(self, draft: Draft, nonce: int | None) -> SignedVersion:
        """Sign. MUST NOT talk to a node where ``uses_nonce``: it runs inside a transaction."""

    def broadcast(self, version: SignedVersion) -> None:
        """Send the stored bytes. MUST be safe to repeat: "already known" is success."""

    def observe(self, version: SignedVersion) -> Observation:
        """Where the version is now."""

    def evidence(self, version: SignedVersion, seen: Observation) -> dict[str, Json]:
        """What a receipt carries for offline checking (headers, merkle proofs, raw bytes)."""

    def lookup(self, transaction_id: str) -> Observation:
        """Find a transaction or CID by its id alone and read the root back: for verifiers."""

    def newest_block(self) -> Beacon | None:
        """The newest block that is as deep as an anchor has to be to be final; None of a network
        whose blocks have no time."""
        return None

    def depth_of(self, block: Beacon) -> int:
        """How deep a block lies in the node's chain, 1 for the newest; 0 where that has another at
        its height, or none."""
        return 0

    def close(self) -> None:
        """Drop the connections, where any are kept."""
        return


def require_payload(network: str, payload: bytes, replaces: SignedVersion | None) -> None:
    """What every draft asks first. Raises RejectedError: not an anchor's payload, or not that of
    the version it replaces."""
    if payload_root(payload) is None:
        raise RejectedError(f"{network}: the payload is not the tag MLP1 and a 32-byte root")
    if replaces is not None and replaces.payload != payload:
        raise RejectedError(f"{network}: a replacement must carry the payload of what it replaces")


@runtime_checkable
class LooksUpMany(Network, Protocol):
    """A network that can be asked for many transactions in few calls; not all can."""

    def lookup_many(self, transaction_ids: Sequence[str]) -> Mapping[str, Observation]:
        """:meth:`Network.lookup` in bulk, answer by answer the same.

        What is refused, contradictory, not answered or not mined is left out, for ``lookup``
        to say why.
        """
