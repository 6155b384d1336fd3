"""A TPM on paper: quotes packed by hand from the tables of TPM 2.0's Part 2, under a fixed key."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Iterable
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from provenance.proofs.host.certificates import AIK
from provenance.proofs.host.evidence import Quote

KEY = ec.derive_private_key(0xA11CE, ec.SECP256R1())
CA_KEY = ec.derive_private_key(0xCA, ec.SECP256R1())
DAY = datetime.datetime(2023, 11, 14, tzinfo=datetime.UTC)


def sized(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def public(key: ec.EllipticCurvePrivateKey = KEY, attributes: int = 0x00050072) -> bytes:
    """TPMT_PUBLIC of an ECDSA key on P-256."""
    at = key.public_key().public_numbers()
    head = struct.pack(">HHI", 0x0023, 0x000B, attributes) + sized(b"")
    scheme = struct.pack(">HHHHH", 0x0010, 0x0018, 0x000B, 0x0003, 0x0010)
    return head + scheme + sized(at.x.to_bytes(32, "big")) + sized(at.y.to_bytes(32, "big"))


def attest(extra: bytes, pcrs: dict[int, bytes], clock: int, resets: int, restarts: int) -> bytes:
    """TPMS_ATTEST of a quote."""
    digest = sha256(b"".join(pcrs[number] for number in sorted(pcrs))).digest()
    chosen = sum(1 << number for number in pcrs).to_bytes(3, "little")
    head = bytes.fromhex("ff5443478018") + sized(b"\x00\x0b" + bytes(32)) + sized(extra)
    counts = struct.pack(">QIIBQ", clock, resets, restarts, 1, 0x2019102300163636)
    return head + counts + struct.pack(">IHB", 1, 0x000B, 3) + chosen + sized(digest)


def quote(
    extra: bytes,
    pcrs: dict[int, bytes] | None = None,
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    clock: int = 3_600_000,
    resets: int = 7,
    restarts: int = 0,
    certificates: tuple[bytes, ...] = (),
) -> Quote:
    """A quote over ``extra``; the same bytes every time."""
    pcrs = pcrs or {0: b"\x0a" * 32, 7: b"\x07" * 32}
    message = attest(extra, pcrs, clock, resets, restarts)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
    signature = struct.pack(">HH", 0x0018, 0x000B)
    signature += sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
    return Quote(message, signature, public(key), pcrs, certificates)


def unsigned(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, days: int
) -> x509.CertificateBuilder:
    """A certificate of a key that holds from the day before `DAY` for so many days."""
    begin = DAY - datetime.timedelta(1)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days))
    )


def certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str = "test root",
    issuer_key: ec.EllipticCurvePrivateKey = CA_KEY,
    *,
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = AIK,
    days: int = 30,
) -> x509.Certificate:
    """One of an attestation key, or of a CA."""
    builder = unsigned(name, key, issuer, days)
    builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if usage is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.sign(issuer_key, SHA256(), ecdsa_deterministic=True)


def event_log(events: Iterable[tuple[int, bytes]], locality: int | None = None) -> bytes:
    """A crypto-agile log of a SHA-256 bank: PCR and data of each event, extended as its digest."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, 1)
    spec += struct.pack("<HHB", 0x000B, 32, 0)
    log = struct.pack("<II20xI", 0, 3, len(spec)) + spec
    if locality is not None:
        data = b"StartupLocality\0" + bytes([locality])
        log += struct.pack("<IIIH", 0, 3, 1, 0x000B) + bytes(32) + struct.pack("<I", 17) + data
    for pcr, data in events:
        log += struct.pack("<IIIH", pcr, 13, 1, 0x000B) + sha256(data).digest()
        log += struct.pack("<I", len(data)) + data
    return log


ROOT = certificate("test root", CA_KEY, ca=True)


def der(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(each.public_bytes(Encoding.DER) for each in certificates)
