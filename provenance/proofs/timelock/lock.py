"""A time lock: records of a run, encrypted under a key that approvers hold in shares.

FORMAT, version 1: docs/FORMAT.md, section 14. The records are encrypted with ChaCha20-Poly1305 (RFC
8439) under a fresh key, which is split by Shamir's scheme; each share is encrypted to an
approver's X25519 key (RFC 7748, HKDF of RFC 5869). No cryptography knows block heights: an approver
gives the share away once the height has passed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from provenance.errors import FormatError, InputError, ProofError
from provenance.formats.fields import Fields, Key, as_json, names_of
from provenance.formats.json_text import canonical_json
from provenance.formats.record import Json
from provenance.proofs.timelock import shamir

VERSION: Final = 1
FILE: Final = "timelock.json"
MAX_BYTES: Final = 1024**2
MAX_RECORDS_BYTES: Final = 700_000
"""Of the records of a lock, together."""
MAX_APPROVERS: Final = 16
_MAX_RECORDS: Final = 4000
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_NONCE: Final = bytes(12)
"""Each key encrypts once."""
_CHAIN: Final = ("chain_id", "chain", "genesis")


@dataclass(frozen=True, slots=True)
class After:
    """The height that must have passed: ``chain`` is what tells that chain from others."""

    network: str
    chain: Mapping[str, Json]
    height: int


@dataclass(frozen=True, slots=True)
class Approver:
    """Who holds a share: its X25519 public key, and the share encrypted to it, 48 bytes."""

    name: str
    key: bytes
    share: bytes


@dataclass(frozen=True, slots=True)
class TimeLock:
    """Records of a run that open with ``threshold`` of the approvers' shares.

    Attributes:
        root: The run root of the newest seal, 32 bytes.
        records: Digests of the records, 32 bytes each, in the order in which they are locked.
        ephemeral: The X25519 public key that the shares were encrypted with.
        approvers: Share i, from 1, is that of the i-th.
        sealed: The encrypted records.
    """

    run: UUID
    root: bytes
    after: After
    threshold: int
    records: tuple[bytes, ...]
    ephemeral: bytes
    approvers: tuple[Approver, ...]
    sealed: bytes

    def digest(self) -> bytes:
        """SHA-256 of the file, which shares name."""
        return hashlib.sha256(self.encode()).digest()

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        sealed = base64.b64encode(self.sealed).decode()
        return canonical_json({"v": VERSION, **as_json(self), "sealed": sealed})

    def bound(self, index: int | None = None) -> bytes:
        """What the encryption of a share, or of the records where None, is bound to: nothing of it
        can be changed, the height least of all."""
        fields: dict[str, Json] = as_json(self)
        del fields["sealed"]
        if index is not None:
            fields |= {"approvers": None, "index": index}
        return canonical_json({"v": VERSION, **fields})

    @classmethod
    def decode(cls, data: bytes, name: str = FILE) -> TimeLock:
        """Read `encode`, or ``FormatError``; nothing is verified but its form."""
        top = Fields.parse_canonical(data, name, VERSION, limit=MAX_BYTES)
        top.only("v", *names_of(cls))
        after = top.object("after", *names_of(After))
        people = top.objects("approvers", *names_of(Approver))
        records = top.hashes("records")
        if not 1 <= len(people) <= MAX_APPROVERS:
            raise FormatError(f"{name}: approvers: found {len(people)}, expected 1 to 16")
        if not 1 <= len(records) <= _MAX_RECORDS or len(set(records)) != len(records):
            top.refuse("records", f"1 to {_MAX_RECORDS} digests that differ")
        return cls(
            run=top.uuid("run"),
            root=top.hex("root", 32),
            after=After(
                after.one_of("network", ("bitcoin", "ethereum")),
                _chain(after.object("chain").only(*_CHAIN)),
                after.integer("height", 1),
            ),
            threshold=top.integer("threshold", 1, len(people)),
            records=records,
            ephemeral=top.hex("ephemeral", 32),
            approvers=tuple(
                Approver(
                    each.matching("name", _NAME, "1 to 64 of A-Z a-z 0-9 . _ @ -"),
                    each.hex("key", 32),
                    each.hex("share", 48),
                )
                for each in people
            ),
            sealed=_base64(top, "sealed"),
        )


@dataclass(frozen=True, slots=True)
class Share:
    """What an approver gives away: share ``index``, from 1, of the lock with that digest."""

    lock: bytes
    index: int
    share: bytes

    def encode(self) -> bytes:
        """RFC 8785 JSON."""
        return canonical_json({"v": VERSION, **as_json(self)})

    @classmethod
    def decode(cls, data: bytes, name: str) -> Share:
        """Read `encode`, or ``FormatError``."""
        top = Fields.parse_canonical(data, name, VERSION, limit=1024)
        top.only("v", *names_of(cls))
        index = top.integer("index", 1, MAX_APPROVERS)
        return cls(top.hex("lock", 32), index, top.hex("share", 32))


def private_key(seed: bytes) -> X25519PrivateKey:
    """The X25519 key of an identity's 32 bytes, apart from the key that signs."""
    return X25519PrivateKey.from_private_bytes(_derive(seed, b"identity"))


def seal(
    run: UUID,
    root: bytes,
    after: After,
    threshold: int,
    approvers: Mapping[str, bytes],
    records: Sequence[bytes],
    random: Callable[[int], bytes],
) -> TimeLock:
    """Lock records for approvers, by name their X25519 public keys. Raises InputError: too many or
    too large records; approvers or a threshold that cannot be."""
    if not 1 <= threshold <= len(approvers) <= MAX_APPROVERS:
        found = f"found {threshold} of {len(approvers)}"
        raise InputError(f"-k: {found}, expected 1 to all of 1 to {MAX_APPROVERS} approvers")
    text = b"".join(len(each).to_bytes(4, "big") + each for each in records)
    if not 1 <= len(records) <= _MAX_RECORDS or len(text) > MAX_RECORDS_BYTES:
        found = f"found {len(records)} records of {len(text)} bytes"
        raise InputError(f"--lock: {found}, expected 1 to 4000 of at most {MAX_RECORDS_BYTES}")
    key, ephemeral = random(32), X25519PrivateKey.from_private_bytes(random(32))
    shares = shamir.split(key, threshold, len(approvers), random)
    digests = tuple(hashlib.sha256(each).digest() for each in records)
    public = ephemeral.public_key().public_bytes_raw()
    lock = TimeLock(run, root, after, threshold, digests, public, (), b"")
    sealed = []
    for index, (name, own) in enumerate(approvers.items(), 1):
        share = _cipher(ephemeral, own, public, own).encrypt(
            _NONCE, shares[index], lock.bound(index)
        )
        sealed.append(Approver(name, own, share))
    lock = replace(lock, approvers=tuple(sealed))
    return replace(lock, sealed=ChaCha20Poly1305(key).encrypt(_NONCE, text, lock.bound()))


def release(lock: TimeLock, key: X25519PrivateKey) -> Share:
    """An approver's share. Raises ProofError: the key is no approver's, or the lock was changed."""
    public = key.public_key().public_bytes_raw()
    keys = [each.key for each in lock.approvers]
    if public not in keys:
        raise ProofError(f"{FILE}: found the key {public.hex()}, expected that of an approver")
    index = keys.index(public) + 1
    cipher = _cipher(key, lock.ephemeral, lock.ephemeral, public)
    try:
        share = cipher.decrypt(_NONCE, lock.approvers[index - 1].share, lock.bound(index))
    except InvalidTag:
        raise ProofError(
            f"{FILE}: share {index} was encrypted for another lock, height or run"
        ) from None
    return Share(lock.digest(), index, share)


def unlock(lock: TimeLock, shares: Iterable[tuple[str, Share]]) -> list[bytes]:
    """The records, each of its digest.

    Args:
        shares: Each with its file's name.

    Raises:
        InputError: Too few shares, one twice, or one of another lock.
        ProofError: The shares open nothing, or other records than the lock's digests name.
    """
    digest, files, given = lock.digest(), dict[int, str](), dict[int, bytes]()
    for file, share in shares:
        at = share.index
        if share.lock != digest or at > len(lock.approvers):
            raise InputError(f"{file}: is of the lock {share.lock.hex()}, not this")
        if at in files:
            same = f"is share {at}, as {files[at]} is"
            raise InputError(f"{file}: {same}; expected shares that differ")
        files[at], given[at] = file, share.share
    if len(given) < lock.threshold:
        found = f"found {len(given)} share{'' if len(given) == 1 else 's'}"
        raise InputError(f"{found}, expected {lock.threshold} that differ")
    chosen = dict(sorted(given.items())[: lock.threshold])
    try:
        key = ChaCha20Poly1305(shamir.combine(chosen))
        text = key.decrypt(_NONCE, lock.sealed, lock.bound())
    except InvalidTag:
        raise ProofError(
            f"{FILE}: these shares do not open it: one, or the lock, is forged"
        ) from None
    records = []
    while text:
        size = int.from_bytes(text[:4], "big")
        records.append(text[4 : 4 + size])
        text = text[4 + size :]
    if tuple(hashlib.sha256(each).digest() for each in records) != lock.records:
        raise ProofError(f"{FILE}: holds other records than it says")
    return records


def _cipher(
    own: X25519PrivateKey, other: bytes, ephemeral: bytes, public: bytes
) -> ChaCha20Poly1305:
    try:
        secret = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:  # RFC 7748, section 6.1: all zeros, of a point of low order
        raise ProofError(f"{other.hex()}: is no usable X25519 key") from None
    return ChaCha20Poly1305(_derive(secret, b"share", ephemeral + public))


def _derive(secret: bytes, name: bytes, context: bytes = b"") -> bytes:
    info = b"ml-provenance/timelock/" + name + b"/v1\0" + context
    return HKDF(SHA256(), 32, None, info).derive(secret)


def _chain(fields: Fields) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key in fields.raw:
        found[key] = fields.integer(key) if key == "chain_id" else fields.text(key)
    if not found:
        raise FormatError(f"{fields.file}: {fields.path}: found no key, expected chain_id or chain")
    return found


def _base64(fields: Fields, key: Key) -> bytes:
    text = fields.text(key)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if base64.b64encode(data).decode() != text or len(data) < 16:
        fields.refuse(key, "base64 of 16 bytes at least")
    return data
