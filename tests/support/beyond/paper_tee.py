"""Confidential hardware on paper: a TD's quote, an SEV-SNP guest's report, a GPU's measurements,
packed by hand from the vendors' tables, under certificates of a test CA."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import sha256
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provenance.proofs.host.evidence import NVIDIA, SEV_SNP, TDX, Report
from tests.support.beyond.paper_tpm import unsigned

Key = ec.EllipticCurvePrivateKey
CA_KEY = ec.derive_private_key(0xCA, ec.SECP384R1())
PCK = ec.derive_private_key(0x9C4, ec.SECP256R1())
ATTESTATION = ec.derive_private_key(0xA77, ec.SECP256R1())
CHIP_KEY = ec.derive_private_key(0xC41, ec.SECP384R1())
CHIP = bytes(range(64))
AMD = "1.3.6.1.4.1.3704.1."
VERSIONS = {AMD + "3.1": 2, AMD + "3.2": 0, AMD + "3.3": 5, AMD + "3.8": 68}
TCB = bytes([2, 0, 0, 0, 0, 0, 5, 68])
SGX, DICE = "1.2.840.113741.1.13.1", "2.23.133.5.4.1"
QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")


def certificate(
    name: str,
    key: Key,
    extensions: Mapping[str, bytes] | None = None,
    *,
    issuer: str = "test vendor",
    issuer_key: Key = CA_KEY,
    ca: bool = False,
    below: int | None = None,
    days: int = 36_500,
) -> x509.Certificate:
    """Of a device's key with its vendor's extensions, or of a CA, with at most so many below it."""
    builder = unsigned(name, key, issuer, days)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, below), critical=True)
    for oid, value in (extensions or {}).items():
        own = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(own, critical=False)
    return builder.sign(issuer_key, SHA384(), ecdsa_deterministic=True)


VENDOR = certificate("test vendor", CA_KEY, ca=True)
PCK_CERTIFICATE = certificate("PCK", PCK, {SGX: b"\x30\x00"})


def chip_certificate(
    versions: Mapping[str, int] = VERSIONS, chip: bytes | None = CHIP
) -> x509.Certificate:
    """A VCEK's; a VLEK's, where it names no chip."""
    extensions = {oid: b"\x02\x01" + bytes([value]) for oid, value in versions.items()}
    return certificate("VCEK", CHIP_KEY, extensions | ({} if chip is None else {AMD + "4": chip}))


def raw(key: Key, message: bytes) -> tuple[int, int]:
    hashed = SHA256() if key.curve.key_size == 256 else SHA384()
    return decode_dss_signature(key.sign(message, ec.ECDSA(hashed, deterministic_signing=True)))


def big(key: Key, message: bytes) -> bytes:
    size = key.curve.key_size // 8
    return b"".join(value.to_bytes(size, "big") for value in raw(key, message))


def filled(size: int, fields: Mapping[int, bytes]) -> bytes:
    data = bytearray(size)
    for at, value in fields.items():
        data[at : at + len(value)] = value
    return bytes(data)


def td_quote(
    extra: bytes,
    body: Mapping[int, bytes] | None = None,
    enclave: Mapping[int, bytes] | None = None,
    *,
    version: int = 4,
    size: int = 584,
    chain: tuple[x509.Certificate, ...] = (PCK_CERTIFICATE, VENDOR),
) -> Report:
    """A TD's; ``body`` and ``enclave`` are bytes of the TD's and of the enclave's report by place,
    other than usual."""
    usual = {136: b"\x4d" * 48, 328: b"\x01" * 48, 520: extra.ljust(64, b"\0")}
    td = filled(size, usual | dict(body or {}))
    header = struct.pack("<HHI", version, 2, 0x81) + bytes(4) + b"v" * 16 + bytes(20)
    kind = struct.pack("<HI", 2 if size == 584 else 3, size) if version == 5 else b""
    signed = header + kind + td
    point = ATTESTATION.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    named = sha256(point + b"auth").digest()
    usual = {48: b"\x15", 128: QE_SIGNER, 256: b"\2\0\7\0", 320: named}
    own = filled(384, usual | dict(enclave or {}))
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
    certified = own + big(PCK, own) + b"\4\0auth" + struct.pack("<HI", 5, len(pem)) + pem
    signatures = big(ATTESTATION, signed) + point + struct.pack("<HI", 6, len(certified))
    signatures += certified
    return Report(TDX, signed + struct.pack("<I", len(signatures)) + signatures)


def snp_report(
    extra: bytes,
    fields: Mapping[int, bytes] | None = None,
    chain: tuple[x509.Certificate, ...] | None = None,
) -> Report:
    """An SEV-SNP guest's; ``fields`` are bytes by place, other than usual."""
    usual = {
        0x00: b"\2", 0x08: b"\0\0\3", 0x34: b"\1", 0x50: extra.ljust(64, b"\0"),
        0x90: b"\x5e" * 48, 0x180: TCB, 0x1A0: CHIP,
    }  # fmt: skip
    signed = filled(0x2A0, usual | dict(fields or {}))
    r, s = raw(CHIP_KEY, signed)
    signature = r.to_bytes(72, "little") + s.to_bytes(72, "little")
    chain = (chip_certificate(), VENDOR) if chain is None else chain
    return Report(SEV_SNP, filled(1184, {0: signed, 0x2A0: signature}), der(*chain))


def certificate_table(**certificates: x509.Certificate) -> bytes:
    """What a host hands an SEV-SNP guest: ``vcek``, ``ask``, ``ark``."""
    names = {
        "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
        "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
        "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    }
    at, head, tail = 24 * (len(certificates) + 1), b"", b""
    for name, each in certificates.items():
        [own] = der(each)
        head += UUID(names[name]).bytes + struct.pack("<II", at + len(tail), len(own))
        tail += own
    return head + bytes(24) + tail


def gpu_report(extra: bytes, measured: bytes = b"\1\1\x33\1" + b"m" * 96) -> Report:
    """An NVIDIA GPU's."""
    request = b"\x11\xe0\1\xff" + extra + b"\0"
    answer = b"\x11\x60\0\0\1" + len(measured).to_bytes(3, "little") + measured
    signed = request + answer + b"g" * 32 + b"\3\0abc"
    own = certificate("GPU", CHIP_KEY, {DICE: b"\x30\x00"})
    return Report(NVIDIA, signed + big(CHIP_KEY, signed), der(own, VENDOR))


def der(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(each.public_bytes(Encoding.DER) for each in certificates)
