"""Quotes of Intel TDX, checked from bytes alone.

A quote (Intel TDX DCAP Quoting Library API, A.3 version 4, A.4 version 5; little-endian, keys and
signatures big-endian) is believed where

1. it is a TD's, signed by ECDSA on P-256, and reads to its last byte but for zeros behind it;
2. the attestation key signed its header and body;
3. the quoting enclave reported that key (SHA-256 of the key and the authentication data), is
   Intel's own (signer and product of its published identity ``TD_QE``) and no debug enclave;
4. the PCK certificate's key signed the enclave's report; that certificate has Intel's extension;
5. neither the TD (its attributes under test, of which debug is one) nor the TDX module can be
   looked into, and the module is Intel's (a signer of zeros);
6. its report data is the qualifying data asked for and zeros.

Not looked at: how new firmware, module and enclave are (TCB levels), and what runs in the TD.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from provenance.errors import FormatError, ProofError
from provenance.proofs.host.certificates import (
    Attested,
    check_ecdsa,
    extension,
    key_of,
    read_pem,
)
from provenance.proofs.host.evidence import MAX_CERTIFICATE_BYTES, MAX_REPORT_BYTES, Report
from provenance.proofs.host.reader import Reader

ECDSA_P256: Final = 2
TEE_TDX: Final = 0x81
BODIES: Final = {2: 584, 3: 648}
"""Sizes by type: of a TD's report of TDX 1.0, and of 1.5."""
QE_REPORT, PEM_CHAIN = 6, 5
QE_REPORT_BYTES: Final = 384
QE_SIGNER: Final = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
QE_PRODUCT: Final = 2
QE_FLAGS, QE_FLAGS_MASK = 0x11, 0xFFFFFFFFFFFFFFFB
"""Initialised, with the provisioning key; a 64-bit enclave or not; and no debug (0x02)."""
SGX_EXTENSION: Final = "1.2.840.113741.1.13.1"


def check_tdx(report: Report, qualifying: bytes) -> Attested:
    """What a quote attests once (1) to (6) hold; whether its chain ends in a root that somebody
    pins is left to :func:`~provenance.proofs.host.certificates.root_of`.

    Raises:
        FormatError: It is not to the byte what Intel's document says.
        BadSignatureError: A key did not sign what it should have.
        ProofError: It is of a debug TD, of another enclave, run or moment.
    """
    reader = Reader(report.data, "tdx", "little")  # (1)
    version = reader.one_of(2, (4, 5), "version")
    reader.one_of(2, (ECDSA_P256,), "type of the key")
    reader.one_of(4, (TEE_TDX,), "type of the environment")
    reader.take(40)  # reserved, the quoting enclave's vendor, user data
    size = BODIES[2]
    if version == 5:
        size = BODIES[reader.one_of(2, tuple(BODIES), "type of the body")]
        reader.one_of(4, (size,), "size of the body")
    body = reader.take(size)
    signed = report.data[: reader.at]
    signatures = reader.part("signatures", MAX_REPORT_BYTES, 4)
    if any(report.data[reader.at :]):
        raise FormatError(f"tdx: bytes other than zeros behind byte {reader.at}")
    signature, point = signatures.take(64), signatures.take(64)
    signatures.one_of(2, (QE_REPORT,), "type of the certification data")
    certification = signatures.part("certification data", MAX_REPORT_BYTES, 4)
    signatures.end()
    enclave, enclave_signature = certification.take(QE_REPORT_BYTES), certification.take(64)
    authentication = certification.sized(MAX_REPORT_BYTES)
    certification.one_of(2, (PEM_CHAIN,), "type of the certificates")
    pem = certification.sized(4 * MAX_CERTIFICATE_BYTES, 4)
    chain = read_pem(pem.removesuffix(b"\0"), "tdx")  # a zero may stand behind the text
    certification.end()

    _check(_key(point), signature, signed, "tdx: quote")  # (2)

    named = hashlib.sha256(point + authentication).digest()  # (3)
    if enclave[320:] != named + bytes(32):
        raise ProofError("tdx: the quoting enclave reported another key than the quote's")
    product = int.from_bytes(enclave[256:258], "little")
    if enclave[128:160] != QE_SIGNER or product != QE_PRODUCT:
        found = f"signer {enclave[128:160].hex()}, product {product}"
        raise ProofError(f"tdx: the quoting enclave is not Intel's: {found}")
    flags = int.from_bytes(enclave[48:56], "little")
    if flags & QE_FLAGS_MASK != QE_FLAGS:
        raise ProofError(f"tdx: the quoting enclave has the attributes {flags:x}, expected 11")

    extension(chain[0], SGX_EXTENSION, "tdx")  # (4)
    _check(chain[0].public_key(), enclave_signature, enclave, "tdx: report of the quoting enclave")

    if any(body[64:120]):  # (5)
        raise ProofError("tdx: the TDX module is not Intel's, or has attributes such as debug")
    if body[120]:
        found = f"{body[120]:02x}"
        raise ProofError(f"tdx: the TD's attributes under test are {found}: it can be debugged")
    if body[520:584] != qualifying.ljust(64, b"\0"):  # (6)
        expected = qualifying.hex()
        raise ProofError(f"tdx: report data is {body[520:584].hex()}, expected {expected} and 00")
    registers = {f"RTMR{n}": body[328 + 48 * n : 376 + 48 * n] for n in range(4)}
    return Attested("Intel TDX", key_of(chain[0]), {"MRTD": body[136:184], **registers}, chain)


def _key(point: bytes) -> ec.EllipticCurvePublicKey:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + point)
    except ValueError as error:
        raise FormatError(f"tdx: attestation key: {error}") from error


def _check(key: object, signature: bytes, message: bytes, what: str) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    check_ecdsa(key, ec.SECP256R1, r, s, message, what)
