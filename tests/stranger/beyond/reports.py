"""Reports of confidential hardware, read by a stranger: written from docs/FORMAT.md, section 2.5.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from formats import need, sha256, unhex

ROOTS = {
    "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3": "Intel",
    "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd": "AMD (Milan)",
    "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1": "AMD (Genoa)",
    "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a": "AMD (Turin)",
    "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48": "NVIDIA",
}
QE_SIGNER = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"
AMD = "1.3.6.1.4.1.3704.1."


def number(data: bytes, at: int, size: int) -> int:
    need(len(data) >= at + size, "too short")
    return int.from_bytes(data[at : at + size], "little")


def signed(key: Any, curve: str, r: int, s: int, message: bytes) -> None:
    need(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == curve, "another key")
    how = hashes.SHA256() if curve == "secp256r1" else hashes.SHA384()
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(how))
    except InvalidSignature:
        raise ValueError("the key did not sign it") from None


def raw(key: Any, curve: str, signature: bytes, message: bytes) -> None:
    half = len(signature) // 2
    r, s = (int.from_bytes(each, "big") for each in (signature[:half], signature[half:]))
    signed(key, curve, r, s, message)


def values(certificate: x509.Certificate) -> dict[str, bytes]:
    return {
        each.oid.dotted_string: each.value.value
        for each in certificate.extensions
        if isinstance(each.value, x509.UnrecognizedExtension)
    }


def td_quote(data: bytes, wanted: bytes) -> list[x509.Certificate]:
    version = number(data, 0, 2)
    need(version in (4, 5) and data[2:8] == b"\2\0\x81\0\0\0", "no quote of a TD")
    at, size = 48, 584
    if version == 5:
        at, size = 54, {2: 584, 3: 648}[number(data, 48, 2)]
        need(number(data, 50, 4) == size, "another size of the body")
    body, end = data[at : at + size], at + size
    rest = data[end + 4 : end + 4 + number(data, end, 4)]
    need(len(rest) == number(data, end, 4), "cut off")
    need(not any(data[end + 4 + len(rest) :]), "bytes behind the quote")
    point, enclave = rest[64:128], rest[134:518]
    need(number(rest, 128, 2) == 6 and number(rest, 130, 4) == len(rest) - 134, "certification")
    size = number(rest, 582, 2)
    authentication, text = rest[584 : 584 + size], rest[584 + size :]
    need(number(text, 0, 2) == 5 and number(text, 2, 4) == len(text) - 6, "certificates")
    chain = x509.load_pem_x509_certificates(text[6:].removesuffix(b"\0"))
    need("1.2.840.113741.1.13.1" in values(chain[0]), "no PCK certificate")
    raw(chain[0].public_key(), "secp256r1", rest[518:582], enclave)
    need(enclave[320:] == sha256(point + authentication) + bytes(32), "another attestation key")
    need(enclave[128:160].hex() == QE_SIGNER and number(enclave, 256, 2) == 2, "another enclave")
    need(number(enclave, 48, 8) in (0x11, 0x15), "a debug enclave")
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + point)
    raw(key, "secp256r1", rest[:64], data[:end])
    need(not any(body[64:121]), "debug, or another's TDX module")
    need(body[520:584] == wanted + bytes(32), "a quote of another moment")
    return chain


def snp_report(data: bytes, chain: list[x509.Certificate], wanted: bytes) -> None:
    need(len(data) == 1184 and not any(data[0x330:]), "another size")
    need(number(data, 0, 4) in (2, 3, 5) and number(data, 0x34, 4) == 1, "another version")
    r, s = number(data, 0x2A0, 72), number(data, 0x2E8, 72)
    signed(chain[0].public_key(), "secp384r1", r, s, data[:0x2A0])
    own = values(chain[0])
    turin = AMD + "3.9" in own
    places = {"9": 0, "1": 1, "2": 2, "3": 3, "8": 7} if turin else {"1": 0, "2": 1, "3": 6, "8": 7}
    for name, at in places.items():
        value = own[f"{AMD}3.{name}"]
        need(value[:1] == b"\2", "no number")
        need(int.from_bytes(value[2:], "big") == data[0x180 + at], "another firmware")
    by = data[0x48] >> 2 & 7
    need(by in (0, 1), "signed by no such key")
    if by == 0:
        chip = own[AMD + "4"]
        need(len(chip) in (8, 64) and data[0x1A0:0x1E0] == chip.ljust(64, b"\0"), "another chip")
    need(not number(data, 8, 8) >> 19 & 1, "a debug guest")
    need(data[0x50:0x90] == wanted + bytes(32), "a report of another moment")


def gpu(data: bytes, chain: list[x509.Certificate], wanted: bytes) -> None:
    need(data[:2] == b"\x11\xe0" and data[37:39] == b"\x11\x60", "no measurements")
    at = 45 + number(data, 42, 3) + 32
    need(len(data) == at + 2 + number(data, at, 2) + 96, "another size")
    raw(chain[0].public_key(), "secp384r1", data[-96:], data[:-96])
    need("2.23.133.5.4.1" in values(chain[0]), "no device's certificate")
    need(data[4:36] == wanted, "measurements of another moment")


def check(report: dict[str, Any], wanted: bytes) -> str | None:
    """What stands behind a report; None where nothing of it is checked."""
    need(set(report) == {"provider", "report", "certificates"}, "other keys of a report")
    provider, data = report["provider"], unhex(report["report"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        chain = [x509.load_der_x509_certificate(unhex(each)) for each in report["certificates"]]
    if provider == "tdx_guest":
        chain = td_quote(data, wanted)
    elif provider in ("sev_guest", "nvidia"):
        {"sev_guest": snp_report, "nvidia": gpu}[provider](data, chain, wanted)
    else:
        return None
    for below, (own, issuer) in enumerate(pairwise(chain)):
        try:
            own.verify_directly_issued_by(issuer)
        except (InvalidSignature, TypeError):
            raise ValueError("a certificate is not issued by the next one") from None
        ca = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        need(ca.ca and (ca.path_length is None or below <= ca.path_length), "an issuer is no CA")
        for each in issuer.extensions:
            signs = not isinstance(each.value, x509.KeyUsage) or each.value.key_cert_sign
            need(signs, "an issuer's key signs no certificates")
    last = str(sha256(chain[-1].public_bytes(Encoding.DER)).hex())
    return f"{ROOTS.get(last, 'a root that you have to know')}: {last}"
