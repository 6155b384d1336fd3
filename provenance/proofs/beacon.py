"""Beacons: recent blocks that nobody could know before their time, and the seeds drawn from them.

docs/FORMAT.md, section 2.4. A worker that asks a network for its anchors publishes the newest block
that is deep enough, under the ledger's key (Ed25519, RFC 8032); a shipper takes it along. ::

    beacon = JCS {"chain", "header", "height", "network", "signature", "v": 1}
    signature over "ml-provenance/beacon/v1" 00 || JCS of the beacon without it
    seed   = the first 4 bytes, big-endian, of SHA-256("ml-provenance/seed/v1" 00 || run (16)
             || u32be draw || hash of each block, by the name of its network)

A block's hash is that of its header: SHA-256 twice of Bitcoin's 80 bytes, Keccak-256 of Ethereum's
RLP, as these bytes come, 32 of them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from provenance.errors import FormatError, ProofError
from provenance.formats.ed25519 import verify_signature
from provenance.formats.fields import Fields, Key, as_json, names_of
from provenance.formats.json_text import canonical_json
from provenance.formats.note import SignerKey
from provenance.proofs import bitcoin, ethereum

BEACON_CONTEXT: Final = b"ml-provenance/beacon/v1\0"
SEED_CONTEXT: Final = b"ml-provenance/seed/v1\0"
BEACON_VERSION: Final = 1
MAX_BEACON_BYTES: Final = 8192
MAX_SEED: Final = 2**32 - 1
"""What every library takes as a seed, NumPy's old generators too."""
NETWORKS: Final = ("bitcoin", "ethereum")
_bitcoin = lru_cache(16)(bitcoin.parse_header)
_ethereum = lru_cache(16)(ethereum.parse_header)
"""One of a run's blocks is asked for often, and its Keccak takes milliseconds here."""
_HEADER: Final = re.compile("(?:[0-9a-f]{2}){80,2048}")


@dataclass(frozen=True, slots=True)
class Beacon:
    """A block of a network that has time.

    Attributes:
        network, chain: ``bitcoin`` and its chain, such as ``main``; ``ethereum`` and its chain id
            as decimal text.
        height: As its node said; an Ethereum header states it too.
        header: The 80 bytes, or the header's RLP.
    """

    network: str
    chain: str
    height: int
    header: bytes

    @property
    def hash(self) -> bytes:
        """32 bytes, as hashed; FormatError where the header does not parse."""
        return _bitcoin(self.header).hash if self._is_bitcoin else _ethereum(self.header).hash

    @property
    def shown(self) -> str:
        """The hash as people write it: Bitcoin's reversed, Ethereum's behind ``0x``."""
        return bitcoin.display(self.hash) if self._is_bitcoin else "0x" + self.hash.hex()

    @property
    def time(self) -> int:
        """Unix seconds, as the header states."""
        if self._is_bitcoin:
            return _bitcoin(self.header).time
        return _ethereum(self.header).timestamp

    @property
    def _is_bitcoin(self) -> bool:
        return self.network == "bitcoin"

    @property
    def label(self) -> str:
        """``bitcoin block 840000``."""
        return f"{self.network} block {self.height}"

    def check(self) -> None:
        """``ProofError`` where the header is not one of the chain: Bitcoin's work, Ethereum's
        number; ``FormatError`` where it is none."""
        if not self._is_bitcoin:
            number = _ethereum(self.header).number
            if number != self.height:
                raise ProofError(f"{self.label}: its header is of block {number}")
        elif self.chain not in bitcoin.CHAINS:
            raise ProofError(f"{self.label}: no chain of Bitcoin is named {self.chain[:20]!r}")
        else:
            limit = bitcoin.CHAINS[self.chain].limit
            bitcoin.check_work(_bitcoin(self.header), limit)

    def as_json(self) -> dict[str, Any]:
        """For :func:`read_beacon`."""
        found: dict[str, Any] = as_json(self)
        return found


def read_beacon(fields: Fields, key: Key) -> Beacon:
    """A field that is a beacon without its signature, in the records of seeds; or FormatError."""
    return _read(fields.object(key, *names_of(Beacon)))


def read_beacons(fields: Fields, key: str) -> tuple[Beacon, ...]:
    """A field that lists beacons, one of a network, by its name; or FormatError."""
    found = fields.items(key, read_beacon)
    names = [each.network for each in found]
    if names != sorted(set(names)):
        fields.refuse(key, "one block of a network, by the networks' names")
    return found


def sign_beacon(beacon: Beacon, key: SignerKey) -> bytes:
    """The beacon as it is published."""
    document = {"v": BEACON_VERSION, **beacon.as_json()}
    signature = key.sign(BEACON_CONTEXT + canonical_json(document))
    return canonical_json(document | {"signature": signature.hex()})


def open_beacon(data: bytes, public_key: bytes) -> Beacon:
    """Read `sign_beacon`, or ``FormatError``; ``BadSignatureError`` where another key than the
    ledger's (32 bytes) signed it; ``ProofError`` as :meth:`Beacon.check`."""
    top = Fields.parse_canonical(data, "beacon", BEACON_VERSION, limit=MAX_BEACON_BYTES)
    top.only("v", "signature", *names_of(Beacon))
    document = {name: value for name, value in top.raw.items() if name != "signature"}
    message = BEACON_CONTEXT + canonical_json(document)
    verify_signature(public_key, top.hex("signature", 64), message, "beacon")
    beacon = _read(top)
    beacon.check()
    return beacon


def draw_seed(run: UUID, draw: int, beacons: Sequence[Beacon]) -> int:
    """The seed of 32 bits that a run draws from blocks, ``draw`` times before."""
    blocks = b"".join(each.hash for each in beacons)
    message = SEED_CONTEXT + run.bytes + draw.to_bytes(4, "big") + blocks
    return int.from_bytes(hashlib.sha256(message).digest()[:4], "big")


def random_seed() -> int:
    """One that no block stands behind."""
    return secrets.randbelow(MAX_SEED + 1)


def _read(fields: Fields) -> Beacon:
    beacon = Beacon(
        network=fields.one_of("network", NETWORKS),
        chain=fields.text("chain"),
        height=fields.integer("height"),
        header=bytes.fromhex(fields.matching("header", _HEADER, "80 to 2,048 bytes as hex")),
    )
    try:
        assert len(beacon.hash) == 32
    except FormatError as error:
        raise FormatError(f"{fields.file}: {fields.path_of('header')}: {error}") from error
    return beacon
