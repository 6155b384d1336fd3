"""A TPM's quotes, read by a stranger: written from docs/FORMAT.md, section 2.5.

Imports nothing of the program that it checks.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any
from uuid import UUID

from beyond import reports
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from formats import need, sha256, unhex

HASHES: dict[int, Any] = {11: hashes.SHA256(), 12: hashes.SHA384()}
CURVES: dict[int, Any] = {3: ec.SECP256R1(), 4: ec.SECP384R1()}
BODY = {"phase", "tpm", "event_log", "reports", "software", "problems"}
TPM = {"attest", "signature", "public", "pcrs", "certificates"}


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, size: int) -> bytes:
        need(len(self.rest) >= size, "too short")
        taken, self.rest = self.rest[:size], self.rest[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        need(not self.rest, "bytes behind the end")


def public_key(data: bytes) -> tuple[Any, int, int]:
    read = Bytes(data)
    kind, named, attributes, _ = read.number(2), read.number(2), read.number(4), read.sized()
    need(named in HASHES, "a name by another hash")
    need(attributes & 0x50032 == 0x50032 and not attributes & 0x20000, "no restricted signing key")
    need(read.number(2) == 16, "a symmetric algorithm")
    scheme = read.number(2)
    hashed = 16 if scheme == 16 else read.number(2)
    key: Any
    if kind == 1:
        bits, exponent, modulus = read.number(2), read.number(4) or 65537, read.sized()
        need(len(modulus) * 8 == bits >= 2048, "a short RSA key")
        key = rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
    else:
        need(kind == 35, "no key")
        curve = CURVES[read.number(2)]
        need(read.number(2) == 16, "a key derivation")
        x, y = (int.from_bytes(read.sized(), "big") for _ in range(2))
        key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    read.end()
    return key, scheme, hashed


def check_signature(key: Any, own: tuple[int, int], data: bytes, message: bytes) -> str:
    read = Bytes(data)
    scheme, hashed = read.number(2), read.number(2)
    need(own in ((scheme, hashed), (16, 16)), "another scheme than the key's")
    try:
        if scheme == 24:
            r, s = (int.from_bytes(read.sized(), "big") for _ in range(2))
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(HASHES[hashed]))
        else:
            need(scheme in (20, 22), "no scheme")
            pss = padding.PSS(padding.MGF1(HASHES[hashed]), padding.PSS.AUTO)
            how = pss if scheme == 22 else padding.PKCS1v15()
            key.verify(read.sized(), message, how, HASHES[hashed])
    except InvalidSignature:
        raise ValueError("the key did not sign it") from None
    read.end()
    return str(HASHES[hashed].name)


def check_quote(tpm: dict[str, Any], wanted: bytes) -> None:
    need(set(tpm) == TPM, "other keys of a quote")
    attest, signature, public = (unhex(tpm[name]) for name in ("attest", "signature", "public"))
    key, *scheme = public_key(public)
    name = check_signature(key, (scheme[0], scheme[1]), signature, attest)
    read = Bytes(attest)
    need(read.take(6) == b"\xffTCG\x80\x18", "no quote of a TPM")
    read.sized()
    need(read.sized() == wanted, "a quote of another moment")
    read.take(16), need(read.number(1) < 2, "safe"), read.take(8)
    need(read.number(4) == 1 and read.number(2) == 11, "no SHA-256 bank")
    size = read.number(1)
    need(size in (3, 4), "another size of the selection")
    chosen = int.from_bytes(read.take(size), "little")
    numbers = [str(number) for number in range(32) if chosen >> number & 1]
    need(sorted(tpm["pcrs"], key=int) == numbers, "other PCRs")
    values = b"".join(unhex(tpm["pcrs"][number], 32) for number in numbers)
    need(hashlib.new(name, values).digest() == read.sized(), "the digest of the PCRs")
    read.end()


def replay(log: bytes) -> dict[int, bytes]:
    (size,) = struct.unpack_from("<I", log, 28)
    need(log[:8] == b"\0\0\0\0\3\0\0\0" and log[32:48] == b"Spec ID Event03\0", "no event log")
    (count,) = struct.unpack_from("<I", log, 56)
    banks = dict(struct.unpack_from("<HH", log, 60 + 4 * at) for at in range(count))
    values: dict[int, bytes] = {}
    at = 32 + size
    while at < len(log):
        pcr, kind, count = struct.unpack_from("<III", log, at)
        at, digest = at + 12, b""
        for _ in range(count):
            (bank,) = struct.unpack_from("<H", log, at)
            if bank == 11:
                digest = log[at + 2 : at + 34]
            at += 2 + banks[bank]
        (size,) = struct.unpack_from("<I", log, at)
        event, at = log[at + 4 : at + 4 + size], at + 4 + size
        if kind != 3:
            need(len(digest) == 32, "an event without a SHA-256 digest")
            values[pcr] = sha256(values.get(pcr, bytes(32)) + digest)
        elif pcr == 0 and event[:16] == b"StartupLocality\0":
            values[0] = bytes(31) + event[16:]
    need(at == len(log), "an event that is cut off")
    return values


def check_record(run: str, run_key: bytes, chain: bytes, body: dict[str, Any]) -> list[str]:
    """What a record's quote and reports are by, a line each."""
    need(set(body) == BODY and body["phase"] in ("start", "end"), "other keys of a host")
    phase = b"\1" if body["phase"] == "end" else b"\0"
    wanted = sha256(b"ml-provenance/host/v1\0" + phase + UUID(run).bytes + run_key + chain)
    lines = []
    for report in body["reports"]:
        name = f"a report of {report['provider']}"
        if report["provider"] == "sev_guest" and report["certificates"] == []:
            lines.append(f"{name} without certificates, not checked")
            continue
        root = reports.check(report, wanted)
        lines.append(f"{name}, certified by {root}" if root else f"{name}, not checked")
    tpm = body["tpm"]
    if tpm is None:
        return lines
    check_quote(tpm, wanted)
    if body["event_log"] is not None:
        values = replay(unhex(body["event_log"]))
        for number in range(8):
            replayed = values.get(number, bytes(32)).hex()
            need(tpm["pcrs"].get(str(number), replayed) == replayed, f"events give PCR {number}")
    return [
        *lines,
        f"a quote of TPM key {sha256(unhex(tpm['public'])).hex()}: compare it with yours",
    ]


def check_hosts(
    run: str,
    run_key: bytes,
    records: list[dict[str, Any]],
    bodies: dict[str, Any],
    chains: dict[str, list[bytes]],
) -> list[tuple[str, bool]]:
    """Lines, each with whether it is a problem."""
    told: list[tuple[str, bool]] = []
    configs = [bodies.get(r["path"]) or {} for r in records if r["kind"] == "config"]
    if asked := next((body["host"] for body in configs if body.get("host")), None):
        attested = {record["producer"] for record in records if record["kind"] == "host"}
        absent = sorted({record["producer"] for record in records} - attested)
        told += [(f"{each}: asked for {asked}, and has no host here", False) for each in absent]
    for record in records:
        path, body = record["path"], bodies.get(record["path"])
        if record["kind"] != "host":
            continue
        if body is None:
            told.append((f"{path}: a host that is withheld", False))
            continue
        try:
            chain = chains[record["producer"]][record["seq"]]
            lines = check_record(run, run_key, chain, body) or ["no quote and no report"]
            told += [(f"{path}: {line}", False) for line in lines]
        except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
            told.append((f"{path}: {error}", True))
    return told


def examples(look: Any) -> None:
    """That of the document."""
    keys, body = look.json("keys"), look.json("host")
    chain = unhex(look.json("statement")["chains"][5], 32)
    need(check_record(keys["run"], unhex(keys["run_public_key"], 32), chain, body), "a host")
