"""Attestation reports of AMD SEV-SNP, checked from bytes alone.

A report (SEV Secure Nested Paging Firmware ABI, publication 56860, ATTESTATION_REPORT;
little-endian) is believed where

1. it is of version 2, 3 or 5, 1,184 bytes long, signed by ECDSA on P-384;
2. the key of its first certificate signed it: of the chip (VCEK), or of a cloud's (VLEK);
3. that certificate states the firmware's versions (reported TCB), and a VCEK's the chip's number,
   that the report has (Versioned Chip Endorsement Key, publication 57230, 3.1);
4. the guest's policy does not let its host debug it;
5. its report data is the qualifying data asked for and zeros.

Not looked at: how new the firmware is, what runs in the guest, whether its policy lets it be moved.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from provenance.errors import FormatError, ProofError, TruncatedError
from provenance.proofs.host.certificates import Attested, check_ecdsa, extension, read_chain
from provenance.proofs.host.evidence import Report

REPORT_BYTES: Final = 1184
SIGNED_BYTES: Final = 0x2A0
VERSIONS: Final = (2, 3, 5)
ECDSA_P384: Final = 1
DEBUG: Final = 1 << 19
VCEK, VLEK = 0, 1
AMD: Final = "1.3.6.1.4.1.3704.1."
CHIP: Final = AMD + "4"
TCB: Final = {AMD + "3.1": 0, AMD + "3.2": 1, AMD + "3.3": 6, AMD + "3.8": 7}
TCB_TURIN: Final = {
    AMD + "3.9": 0, AMD + "3.1": 1, AMD + "3.2": 2, AMD + "3.3": 3, AMD + "3.8": 7,
}  # fmt: skip
"""Of boot loader, operating system of the security processor, SNP and microcode: the extension that
has the version, and its byte in TCB_VERSION. Turin's begins with the FMC's."""
TABLE: Final = {
    VCEK: UUID("63da758d-e664-4564-adc5-f4b93be8accd"),
    VLEK: UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"),
}
ASK, ARK = (
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"),
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"),
)
"""Names in a table of certificates (GHCB specification, publication 56421, MSG_REPORT_REQ)."""


def check_sev_snp(report: Report, qualifying: bytes) -> Attested:
    """What a report attests once (1) to (5) hold; whether its chain ends in a root that somebody
    pins is left to :func:`~provenance.proofs.host.certificates.root_of`.

    Raises:
        FormatError: It is not what AMD's document says, or has no certificates.
        BadSignatureError: The certified key did not sign it.
        ProofError: It is of a debug guest, another chip, firmware, run or moment.
    """
    data = report.data
    signer = signer_of(data)  # (1)
    if not report.certificates:
        raise FormatError("sev-snp: no certificates beside the report")
    chain = read_chain(report.certificates, "sev-snp")
    r, s = (int.from_bytes(data[at : at + 72], "little") for at in (0x2A0, 0x2E8))
    if any(data[0x330:]):
        raise FormatError("sev-snp: bytes other than zeros behind the signature")
    key = chain[0].public_key()
    check_ecdsa(key, ec.SECP384R1, r, s, data[:SIGNED_BYTES], "sev-snp: report")  # (2)

    _check_versions(chain[0], data[0x180:0x188])  # (3)
    chip = data[0x1A0:0x1E0]
    if signer == VCEK:
        named = extension(chain[0], CHIP, "sev-snp")
        if len(named) not in (8, 64) or named.ljust(64, b"\0") != chip:
            raise ProofError(f"sev-snp: certified is chip {named.hex()}, reported {chip.hex()}")
    (policy,) = struct.unpack_from("<Q", data, 8)  # (4)
    if policy & DEBUG:
        raise ProofError(f"sev-snp: the guest's policy {policy:x} lets its host debug it")
    if data[0x50:0x90] != qualifying.ljust(64, b"\0"):  # (5)
        expected = qualifying.hex()
        raise ProofError(
            f"sev-snp: report data is {data[0x50:0x90].hex()}, expected {expected} and 00"
        )
    measured = {"measurement": data[0x90:0xC0], "host data": data[0xC0:0xE0]}
    return Attested("AMD SEV-SNP", chip.hex(), measured, chain)


def signer_of(data: bytes) -> int:
    """By which key a report is signed, :data:`VCEK` or :data:`VLEK`; FormatError."""
    if len(data) != REPORT_BYTES:
        raise FormatError(f"sev-snp: report of {len(data)} bytes, expected {REPORT_BYTES}")
    version, algorithm, flags = (struct.unpack_from("<I", data, at)[0] for at in (0, 0x34, 0x48))
    if version not in VERSIONS or algorithm != ECDSA_P384:
        raise FormatError(
            f"sev-snp: version {version}, algorithm {algorithm}, expected 2, 3 or 5, and 1"
        )
    signer: int = flags >> 2 & 7
    if signer not in TABLE:
        raise FormatError(f"sev-snp: signed by key {signer}, expected 0 (VCEK) or 1 (VLEK)")
    return signer


def certificates_of(report: bytes, table: bytes) -> tuple[bytes, ...]:
    """A report's certificates, in order, from what the host hands a guest beside it; those that it
    lacks are left out. FormatError where either is malformed."""
    found: dict[UUID, bytes] = {}
    for at in range(0, len(table), 24):
        name, offset, size = struct.unpack("<16sII", _slice(table, at, 24))
        if not any(name):
            break
        found[UUID(bytes=name)] = _slice(table, offset, size)
    return tuple(found[name] for name in (TABLE[signer_of(report)], ASK, ARK) if name in found)


def _slice(table: bytes, at: int, size: int) -> bytes:
    if at + size > len(table):
        raise TruncatedError(f"sev-snp: certificates end at byte {len(table)}, not {at + size}")
    return table[at : at + size]


def _check_versions(certificate: x509.Certificate, reported: bytes) -> None:
    present = {each.oid.dotted_string for each in certificate.extensions}
    places: Mapping[str, int] = TCB_TURIN if AMD + "3.9" in present else TCB
    for oid, at in places.items():
        version = extension(certificate, oid, "sev-snp")
        if version[:1] != b"\x02" or int.from_bytes(version[2:], "big") != reported[at]:
            found = f"reported {reported[at]}, certified as {version.hex()} ({oid})"
            raise ProofError(f"sev-snp: a version of the firmware differs: {found}")
