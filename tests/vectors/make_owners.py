"""Examples of anchors that several owners sign, for docs/FORMAT.md, section 8.7."""

from __future__ import annotations

from typing import Final

from provenance.proofs.multisig.bitcoin import Script
from provenance.proofs.multisig.ethereum import StoreRequest
from provenance.proofs.multisig.request import EthereumRequest
from tests.support.nodes.owners import (
    BITCOIN_KEYS,
    cosigned,
    ethereum_signatures,
    psbt_of,
)

SCRIPT: Final = Script.of(2, BITCOIN_KEYS)
CONTRACT: Final = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")
DEADLINE: Final = 1_760_604_800


def owners_examples(payload: bytes, note: str) -> dict[str, bytes | str]:
    """Two of three owners, whose secrets are ``A11CE``, ``B0B`` and ``CA401``, the first and the
    last of them, sign the head of ``note``; by name."""
    request = StoreRequest(31337, CONTRACT, payload[4:], DEADLINE)
    signatures = ethereum_signatures(request, 0, 2)
    psbt = cosigned(psbt_of(payload, SCRIPT), SCRIPT, 0, 2)
    return {
        "owners-digest": request.digest(),
        "owners-call": request.calldata(signatures),
        "owners-script": SCRIPT.raw,
        "owners-coin": psbt.spent[0],
        "owners-spend": psbt.whole(SCRIPT),
        "signing-request": EthereumRequest(note, request, signatures).encode().decode() + "\n",
    }
