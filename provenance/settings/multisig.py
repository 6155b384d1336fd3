"""Settings of networks whose anchors several owners sign."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from provenance.settings.section import Section, bounds

Address = Annotated[str, Meta(pattern="^0x[0-9a-fA-F]{40}$", description="0x and 40 hex digits")]
_PublicKey = Annotated[str, Meta(pattern="^0[23][0-9a-f]{64}$")]


class EthereumMultisig(Section, frozen=True):
    """Owners of an ``MLProvenanceMultisig`` contract, of whom ``threshold`` sign each head."""

    owners: Annotated[tuple[Address, ...], Meta(description="a list of 1 to 16 addresses")]
    threshold: Annotated[int, bounds(1, 16, "a whole number")]


class BitcoinMultisig(Section, frozen=True):
    """Keys of a ``wsh(sortedmulti(...))`` output, ``threshold`` of which sign each head."""

    owners: Annotated[
        tuple[_PublicKey, ...],
        Meta(description="a list of 1 to 16 compressed public keys, 66 lower-case hex digits"),
    ]
    threshold: Annotated[int, bounds(1, 16, "a whole number")]


class TrustedMultisig(Section, frozen=True):
    """Whose signatures every anchor must have, where the network is named here."""

    ethereum: EthereumMultisig | None = None
    bitcoin: BitcoinMultisig | None = None
