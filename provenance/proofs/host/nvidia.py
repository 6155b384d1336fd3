"""Measurements of NVIDIA GPUs, checked from bytes alone.

What a GPU signs (``nvattest collect-evidence``) is the request GET_MEASUREMENTS of DMTF's SPDM
(DSP0274 1.1, 10.11) and its answer, little-endian. It is believed where

1. it reads to the last byte;
2. the key of the first certificate signed it, by ECDSA on P-384 over all but the signature, and
   that certificate is a device's (DICE TcbInfo, 2.23.133.5.4.1);
3. the request's nonce is the qualifying data asked for.

Not looked at: the measurements against NVIDIA's reference values, revocation (OCSP), and whether
the GPU is in confidential mode.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from provenance.errors import FormatError, ProofError
from provenance.proofs.host.certificates import (
    Attested,
    check_ecdsa,
    extension,
    key_of,
    read_chain,
)
from provenance.proofs.host.evidence import MAX_REPORT_BYTES, Report
from provenance.proofs.host.reader import Reader

SPDM_1_1: Final = 0x11
GET_MEASUREMENTS, MEASUREMENTS = 0xE0, 0x60
SIGNATURE_BYTES: Final = 96
DICE_TCB_INFO: Final = "2.23.133.5.4.1"


def check_nvidia(report: Report, qualifying: bytes) -> Attested:
    """What a GPU attests once (1) to (3) hold; whether its chain ends in a root that somebody pins
    is left to :func:`~provenance.proofs.host.certificates.root_of`.

    Raises:
        FormatError: It is not what SPDM says, or has no certificates.
        BadSignatureError: The certified key did not sign it.
        ProofError: It is of another run or moment.
    """
    reader = Reader(report.data, "nvidia", "little")  # (1)
    reader.one_of(1, (SPDM_1_1,), "version")
    reader.one_of(1, (GET_MEASUREMENTS,), "request")
    reader.take(2)  # its parameters
    nonce = reader.take(32)
    reader.take(1)  # the slot of the certificates
    reader.one_of(1, (SPDM_1_1,), "version")
    reader.one_of(1, (MEASUREMENTS,), "answer")
    reader.take(3)  # its parameters, the number of blocks
    measured = reader.sized(MAX_REPORT_BYTES, 3)
    reader.take(32)  # the GPU's own nonce
    reader.sized(MAX_REPORT_BYTES)
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    if not report.certificates:
        raise FormatError("nvidia: no certificates beside the measurements")
    chain = read_chain(report.certificates, "nvidia")
    r, s = int.from_bytes(signature[:48], "big"), int.from_bytes(signature[48:], "big")
    signed = report.data[:-SIGNATURE_BYTES]
    check_ecdsa(chain[0].public_key(), ec.SECP384R1, r, s, signed, "nvidia: measurements")  # (2)
    extension(chain[0], DICE_TCB_INFO, "nvidia")
    if nonce != qualifying:  # (3)
        raise ProofError(f"nvidia: nonce is {nonce.hex()}, expected {qualifying.hex()}")
    return Attested("NVIDIA GPU", key_of(chain[0]), {"measurements": measured}, chain)
