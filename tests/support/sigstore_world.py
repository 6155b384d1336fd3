"""A small Sigstore of a test's own: what Fulcio, its CT log and Rekor would sign, made offline.

As sigstore's own verifier wants it: a root CA; a leaf for a key used once, with the subject's name,
Fulcio's issuer extensions (https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md) and an
SCT over its precertificate (RFC 6962, 3.2 and 3.3); a hashedrekord or dsse entry with inclusion
proof, checkpoint (C2SP tlog-checkpoint) and signed entry timestamp; a trusted root.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from provenance.formats.merkle import MerkleTree, root

WHO, ISSUER = "ci@example.org", "https://accounts.google.com"
START = datetime(2025, 1, 1, tzinfo=UTC)
SIGNED_AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
ORIGIN = "log.example.org"
_SCT_LIST = ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ISSUER_V1 = ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
_ISSUER_V2 = ObjectIdentifier("1.3.6.1.4.1.57264.1.8")


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _signed(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return key.sign(data, ec.ECDSA(SHA256()))


@dataclass
class Sigstore:
    """Its keys are fresh for each object: another one is another root."""

    ca: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    ct: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    rekor: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-fulcio")])
        public = self.ca.public_key()
        self.root = (
            self._certificate(self.name, public, START, START + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .sign(self.ca, SHA256())
        )

    def trusted_root(self, path: Path) -> Path:
        """Write the JSON that sigstore's ``TrustedRoot.from_file`` reads."""
        valid = {"start": START.isoformat().replace("+00:00", "Z")}

        def log(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
            public = _public(key)
            return {
                "baseUrl": f"https://{ORIGIN}",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": b64(public),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": valid,
                },
                "logId": {"keyId": b64(hashlib.sha256(public).digest())},
            }

        root = {"rawBytes": b64(self.root.public_bytes(Encoding.DER))}
        value = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [log(self.rekor)],
            "certificateAuthorities": [
                {
                    "subject": {"organization": "test", "commonName": "test-fulcio"},
                    "uri": "https://fulcio.example.org",
                    "certChain": {"certificates": [root]},
                    "validFor": valid,
                }
            ],
            "ctlogs": [log(self.ct)],
            "timestampAuthorities": [],
        }
        path.write_text(json.dumps(value))
        return path

    def sign(
        self,
        message: bytes,
        who: str = WHO,
        issuer: str = ISSUER,
        *,
        late: timedelta = timedelta(),
        sct: bool = True,
        names: Sequence[x509.GeneralName] | None = None,
    ) -> bytes:
        """A bundle over a message; ``late`` is how long after the leaf was made it is logged."""
        key = _key()
        leaf = self._leaf(key.public_key(), names or [_name(who)], issuer, sct)
        signature = _signed(key, message)
        digest = hashlib.sha256(message).digest()
        spec = {
            "data": {"hash": {"algorithm": "sha256", "value": digest.hex()}},
            "signature": {
                "content": b64(signature),
                "publicKey": {"content": b64(leaf.public_bytes(Encoding.PEM))},
            },
        }
        content = {
            "messageDigest": {"algorithm": "SHA2_256", "digest": b64(digest)},
            "signature": b64(signature),
        }
        return self._bundle(leaf, "hashedrekord", spec, late, messageSignature=content)

    def sign_statement(
        self,
        statement: bytes,
        who: str = WHO,
        issuer: str = ISSUER,
        *,
        late: timedelta = timedelta(),
    ) -> bytes:
        """A bundle with an envelope around an in-toto statement; ``late`` as of `sign`."""
        key, kind = _key(), "application/vnd.in-toto+json"
        leaf = self._leaf(key.public_key(), [_name(who)], issuer, True)
        pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(statement), statement)
        signature = b64(_signed(key, pae))
        envelope: dict[str, Any] = {
            "payload": b64(statement), "payloadType": kind, "signatures": [{"sig": signature}],
        }  # fmt: skip
        hashes = [
            {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}
            for data in (rfc8785.dumps(envelope), statement)
        ]
        verifier = b64(leaf.public_bytes(Encoding.PEM))
        spec = {
            "envelopeHash": hashes[0],
            "payloadHash": hashes[1],
            "signatures": [{"signature": signature, "verifier": verifier}],
        }
        return self._bundle(leaf, "dsse", spec, late, dsseEnvelope=envelope)

    def _bundle(
        self,
        leaf: x509.Certificate,
        kind: str,
        spec: dict[str, Any],
        late: timedelta,
        **content: dict[str, Any],
    ) -> bytes:
        when = int((SIGNED_AT + late).timestamp()) + 60
        return rfc8785.dumps(
            {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {
                    "certificate": {"rawBytes": b64(leaf.public_bytes(Encoding.DER))},
                    "tlogEntries": [self._entry(kind, spec, when)],
                },
                **content,
            }
        )

    def _certificate(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        start: datetime,
        end: datetime,
    ) -> x509.CertificateBuilder:
        own = x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(authority, critical=False)
        )

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        issuer: str,
        sct: bool,
    ) -> x509.Certificate:
        text = issuer.encode()
        der = bytes([0x0C, len(text)]) + text
        builder = (
            self._certificate(x509.Name([]), public, SIGNED_AT, SIGNED_AT + timedelta(minutes=10))
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V1, text), critical=False)
            .add_extension(x509.UnrecognizedExtension(_ISSUER_V2, der), critical=False)
        )
        without = builder.sign(self.ca, SHA256())
        if not sct:
            return without
        listed = self._sct(without.tbs_certificate_bytes)
        octets = bytes([0x04, 0x81, len(listed)] if len(listed) > 127 else [0x04, len(listed)])
        extension = x509.UnrecognizedExtension(_SCT_LIST, octets + listed)
        return builder.add_extension(extension, critical=False).sign(self.ca, SHA256())

    def _sct(self, tbs: bytes) -> bytes:
        """A list of one SCT, over a precertificate's bytes (RFC 6962, 3.2)."""
        stamp = int(SIGNED_AT.timestamp() * 1000).to_bytes(8, "big")
        issuer = hashlib.sha256(_public(self.ca)).digest()
        entry = issuer + len(tbs).to_bytes(3, "big") + tbs
        signature = _signed(self.ct, b"\0\0" + stamp + b"\0\1" + entry + b"\0\0")
        log = hashlib.sha256(_public(self.ct)).digest()
        sct = b"\0" + log + stamp + b"\0\0" + b"\4\3" + len(signature).to_bytes(2, "big")
        sct += signature
        item = len(sct).to_bytes(2, "big") + sct
        return len(item).to_bytes(2, "big") + item

    def _entry(self, kind: str, spec: dict[str, Any], when: int) -> dict[str, Any]:
        """The entry is the sixth of a log of eleven."""
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": kind, "spec": spec})
        entries = [bytes([n]) for n in range(11)]
        entries[5] = body
        top = root(entries)
        log = hashlib.sha256(_public(self.rekor)).digest()
        note = f"{ORIGIN}\n11\n{b64(top)}\n"
        signed = b64(log[:4] + _signed(self.rekor, note.encode()))
        stamp: dict[str, Any] = {
            "body": b64(body), "integratedTime": when, "logID": log.hex(), "logIndex": 5,
        }  # fmt: skip
        return {
            "logIndex": "5",
            "logId": {"keyId": b64(log)},
            "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": str(when),
            "inclusionPromise": {
                "signedEntryTimestamp": b64(_signed(self.rekor, rfc8785.dumps(stamp)))
            },
            "inclusionProof": {
                "logIndex": "5",
                "rootHash": b64(top),
                "treeSize": "11",
                "hashes": [b64(value) for value in MerkleTree(entries).inclusion_proof(5)],
                "checkpoint": {"envelope": f"{note}\n— {ORIGIN} {signed}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def _name(who: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(who) if "://" in who else x509.RFC822Name(who)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
