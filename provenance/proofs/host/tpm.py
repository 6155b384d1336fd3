"""TPM 2.0 quotes, checked from bytes alone.

The structures are those of the TPM 2.0 Library, Part 2: TPMS_ATTEST (10.12.12), TPMT_SIGNATURE
(11.3.4), TPMT_PUBLIC (12.2.4); big-endian. A quote is believed where

1. the key is a TPM's own signing key: ``restricted``, which signs nothing that looks like an
   attestation but what the TPM itself made, ``fixedTPM``, ``sensitiveDataOrigin``, no decryption;
2. its signature verifies: ECDSA on P-256 or P-384, RSASSA or RSAPSS, with SHA-256 or SHA-384;
3. TPMS_ATTEST is a quote, with the magic that only a TPM puts there;
4. its qualifying data is the one asked for;
5. the recorded PCRs are those it selects, and hash to its digest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm

from provenance.errors import BadSignatureError, FormatError, ProofError
from provenance.proofs.host.evidence import Quote
from provenance.proofs.host.reader import Reader

MAGIC: Final = 0xFF544347
ST_ATTEST_QUOTE: Final = 0x8018
RSA, ECC = 0x0001, 0x0023
NULL, RSASSA, RSAPSS, ECDSA = 0x0010, 0x0014, 0x0016, 0x0018
HASHES: Final[dict[int, tuple[str, HashAlgorithm]]] = {
    0x000B: ("sha256", SHA256()),
    0x000C: ("sha384", SHA384()),
}
SHA256_BANK: Final = 0x000B
CURVES: Final[dict[int, tuple[ec.EllipticCurve, int]]] = {
    0x0003: (ec.SECP256R1(), 32),
    0x0004: (ec.SECP384R1(), 48),
}
FIXED_TPM, FIXED_PARENT, DATA_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
NEEDED: Final = FIXED_TPM | FIXED_PARENT | DATA_ORIGIN | RESTRICTED | SIGN
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Attest:
    """A quote's TPMS_ATTEST.

    Attributes:
        extra: The qualifying data.
        clock, resets, restarts: Milliseconds of power, and how often the TPM was reset and
            resumed since it was cleared.
        safe: Whether the clock cannot have been higher before.
        pcrs: Numbers of the SHA-256 bank.
        digest: Of their values.
    """

    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: bool
    pcrs: tuple[int, ...]
    digest: bytes


def key_digest(public: bytes) -> str:
    """What pins a key: SHA-256 of its TPMT_PUBLIC, 64 hex digits; ``tpm2_readpublic -n`` writes it
    behind the two bytes ``000b``, where the key's name is by SHA-256."""
    return hashlib.sha256(public).hexdigest()


def check_quote(quote: Quote, qualifying: bytes) -> Attest:
    """What a quote attests once (1) to (5) hold.

    Raises:
        FormatError: A structure is not to the byte what Part 2 says.
        BadSignatureError: The key did not sign it.
        ProofError: It is another key's, another run's or moment's, or of other PCRs.
    """
    key, scheme = read_public(quote.public)  # (1)
    hash_name = _verify(key, scheme, quote.signature, quote.attest)  # (2)
    attest = read_attest(quote.attest)  # (3)
    if attest.extra != qualifying:  # (4)
        found = attest.extra.hex()[:64] or "none"
        raise ProofError(f"tpm: qualifying data is {found}, expected {qualifying.hex()}")
    if attest.pcrs != tuple(quote.pcrs):  # (5)
        selected = ", ".join(map(str, attest.pcrs)) or "none"
        raise ProofError(f"tpm: pcrs are {', '.join(map(str, quote.pcrs))}, quoted: {selected}")
    digest = hashlib.new(hash_name, b"".join(quote.pcrs.values())).digest()
    if digest != attest.digest:
        raise ProofError(f"tpm: pcrs hash to {digest.hex()}, quoted: {attest.digest.hex()}")
    return attest


def read_attest(data: bytes) -> Attest:
    """A quote's TPMS_ATTEST, or FormatError."""
    reader = Reader(data, "tpm: attest")
    if (magic := reader.integer(4)) != MAGIC:
        raise FormatError(f"tpm: attest: magic {magic:08x}, expected {MAGIC:08x}, which a TPM puts")
    if (kind := reader.integer(2)) != ST_ATTEST_QUOTE:
        raise FormatError(f"tpm: attest: type {kind:04x}, expected {ST_ATTEST_QUOTE:04x}, a quote")
    reader.sized()  # qualifiedSigner: its parents' names are not recorded
    extra = reader.sized()
    clock, resets, restarts = reader.integer(8), reader.integer(4), reader.integer(4)
    safe = reader.one_of(1, (0, 1), "safe")
    reader.integer(8)  # firmwareVersion
    reader.one_of(4, (1,), "number of banks")
    reader.one_of(2, (SHA256_BANK,), "bank")
    selected = int.from_bytes(
        reader.take(reader.one_of(1, (3, 4), "size of the selection")), "little"
    )
    digest = reader.sized()
    reader.end()
    numbers = tuple(number for number in range(32) if selected >> number & 1)
    return Attest(extra, clock, resets, restarts, bool(safe), numbers, digest)


def read_public(data: bytes) -> tuple[PublicKey, tuple[int, int]]:
    """A TPM's own signing key from its TPMT_PUBLIC, and its scheme and hash (NULL for any).
    FormatError; ProofError where the key could sign what no TPM made."""
    reader = Reader(data, "tpm: public")
    kind = reader.one_of(2, (RSA, ECC), "type")
    reader.one_of(2, tuple(HASHES), "hash of the name")
    attributes = reader.integer(4)
    reader.sized()  # authPolicy
    reader.one_of(2, (NULL,), "symmetric algorithm")
    scheme = reader.one_of(2, (RSASSA, RSAPSS, NULL) if kind == RSA else (ECDSA, NULL), "scheme")
    hashed = NULL if scheme == NULL else reader.one_of(2, tuple(HASHES), "hash of the scheme")
    key: PublicKey
    try:
        if kind == RSA:
            bits = reader.one_of(2, (2048, 3072, 4096), "key bits")
            exponent, modulus = reader.integer(4) or 65537, reader.sized()
            if len(modulus) * 8 != bits:
                raise FormatError(f"tpm: public: {len(modulus)} bytes, expected {bits // 8}")
            key = rsa.RSAPublicNumbers(exponent, int.from_bytes(modulus, "big")).public_key()
        else:
            curve, size = CURVES[reader.one_of(2, tuple(CURVES), "curve")]
            reader.one_of(2, (NULL,), "key derivation")
            x, y = (int.from_bytes(reader.sized(most=size), "big") for _ in range(2))
            key = ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise FormatError(f"tpm: public: no key: {error}") from error
    reader.end()
    if attributes & NEEDED != NEEDED or attributes & DECRYPT:
        raise ProofError(
            f"tpm: public: attributes {attributes:08x}: not a TPM's own restricted signing key"
        )
    return key, (scheme, hashed)


def _verify(key: PublicKey, scheme: tuple[int, int], signature: bytes, message: bytes) -> str:
    """The name of the hash that it is signed with; errors as :func:`check_quote`."""
    reader = Reader(signature, "tpm: signature")
    kinds = (ECDSA,) if isinstance(key, ec.EllipticCurvePublicKey) else (RSASSA, RSAPSS)
    kind = reader.one_of(2, kinds, "scheme")
    hashed = reader.one_of(2, tuple(HASHES), "hash")
    if scheme not in ((kind, hashed), (NULL, NULL)):
        raise FormatError("tpm: signature: scheme and hash are not those of its key")
    name, algorithm = HASHES[hashed]
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            r, s = (int.from_bytes(reader.sized(most=48), "big") for _ in range(2))
            reader.end()
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
        else:
            own = reader.sized(most=512)
            reader.end()
            pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            key.verify(own, message, pss if kind == RSAPSS else padding.PKCS1v15(), algorithm)
    except InvalidSignature:
        raise BadSignatureError("tpm: signature: the key did not sign this attest") from None
    return name
