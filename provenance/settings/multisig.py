"""Settings of networks whose anchors several owners sign."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from provenance.settings.objects import JsonObject
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


MULTISIG: Mapping[str, Any] = {"ethereum": EthereumMultisig, "bitcoin": BitcoinMultisig}
"""Of each network that can have several owners."""


def multisig_of(
    o: JsonObject, key: str, network: str
) -> dict[str, EthereumMultisig | BitcoinMultisig]:
    """The k-of-n object under a key, taken out, as what :meth:`JsonObject.read` adds; its owners
    are lower-case, ascending and distinct."""
    if o.raw.get(key) is None or network not in MULTISIG:
        return {}
    beside = {"ethereum": "contract_address", "bitcoin": "wallet"}[network]
    if key == "multisig" and o.raw.get(beside) is None:
        raise o.fail(beside, "missing, expected one beside 'multisig'")
    own = o.child(key)
    read = own.read(MULTISIG[network])
    owners = tuple(sorted({owner.lower() for owner in read.owners}))
    if len(owners) != len(read.owners) or not 1 <= len(owners) <= 16:
        raise own.fail("owners", f"found {len(read.owners)}, expected 1 to 16 that differ")
    if read.threshold > len(owners):
        raise own.fail("threshold", f"found {read.threshold}, expected at most {len(owners)}")
    return {key: replace(read, owners=owners)}
