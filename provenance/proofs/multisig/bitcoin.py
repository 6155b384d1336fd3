"""Which keys of a k-of-n script a Bitcoin transaction was signed with.

The script is ``OP_k <key> ... OP_n OP_CHECKMULTISIG`` over compressed keys in ascending order
(BIP 67), behind a P2WSH output (BIP 141): what ``wsh(sortedmulti(k,...))`` describes (BIP 383).

A transaction's id does not cover its witness, so a script alone says nothing. :func:`check_spend`
ties it down: the output that an input spends, from the transaction that made it, whose id the input
names, has the script's hash; and k of the script's keys signed this input (BIP 143, SIGHASH_ALL, so
every output too).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from provenance.errors import FormatError, ProofError
from provenance.proofs.bitcoin import Transaction, display, double_sha256, parse_transaction

MAX_KEYS: Final = 16
"""``OP_16`` is the highest number with a code of its own; consensus allows 20."""
KEY_BYTES: Final = 33
_OP_1, _OP_CHECKMULTISIG = 0x51, 0xAE
_SIGHASH_ALL: Final = 1


@dataclass(frozen=True, slots=True)
class Script:
    """``threshold`` of ``keys``, which are compressed and ascend."""

    threshold: int
    keys: tuple[bytes, ...]

    @classmethod
    def of(cls, threshold: int, keys: Iterable[bytes]) -> Script:
        """With the keys in order. Raises FormatError: no such script."""
        return cls.read(cls(threshold, tuple(sorted(keys))).raw)

    @property
    def raw(self) -> bytes:
        """The witness script."""
        pushes = b"".join(bytes([len(key)]) + key for key in self.keys)
        count = [_OP_1 - 1 + len(self.keys), _OP_CHECKMULTISIG]
        return bytes([_OP_1 - 1 + self.threshold]) + pushes + bytes(count)

    @property
    def output(self) -> bytes:
        """The output script that pays to it (BIP 141)."""
        return b"\x00\x20" + sha256(self.raw).digest()

    @classmethod
    def read(cls, raw: bytes) -> Script:
        """From a witness script. Raises FormatError: another script, a key twice or out of order,
        a threshold above their number."""
        count = (len(raw) - 3) // (1 + KEY_BYTES)
        if not 1 <= count <= MAX_KEYS or len(raw) != 3 + count * (1 + KEY_BYTES):
            raise FormatError("witness script: no k-of-n script of compressed keys")
        at = range(2, len(raw) - 2, 1 + KEY_BYTES)
        script = cls(raw[0] - _OP_1 + 1, tuple(raw[i : i + KEY_BYTES] for i in at))
        if script.raw != raw or any(key[0] not in (2, 3) for key in script.keys):
            raise FormatError("witness script: no k-of-n script of compressed keys")
        if list(script.keys) != sorted(set(script.keys)):
            raise FormatError("witness script: its keys are not distinct, in ascending order")
        if not 1 <= script.threshold <= count:
            raise FormatError(f"witness script: {script.threshold} of {count} keys")
        return script


def check_spend(raw: bytes, spent: Sequence[bytes]) -> tuple[Script, tuple[bytes, ...]]:
    """The script that a transaction spends from, and those of its keys that signed.

    Args:
        raw: The signed transaction. spent: The transactions that made the outputs it spends, each
            once.

    Raises:
        FormatError: Bytes that do not parse, or another script.
        ProofError: An output that is not there or is another script's, inputs of several scripts
            or signers, a signature that does not hold.
    """
    transaction = parse_transaction(raw)
    made = {parsed.txid: parsed for parsed in map(parse_transaction, spent)}
    if len(made) != len(spent) or made.keys() != {point.txid for point in transaction.inputs}:
        raise ProofError("spent: not the transactions whose outputs are spent, each once")
    found = {_signers(transaction, at, made) for at in range(len(transaction.inputs))}
    if len(found) != 1:
        raise ProofError("the inputs are not of one script with the same signers")
    return found.pop()


def _signers(
    transaction: Transaction, at: int, made: dict[bytes, Transaction]
) -> tuple[Script, tuple[bytes, ...]]:
    point, where = transaction.inputs[at], f"input {at}"
    outputs = made[point.txid].outputs
    if point.vout >= len(outputs):
        raise ProofError(f"{where}: {display(point.txid)} has no output {point.vout}")
    stack = transaction.witness[at] if transaction.witness else ()
    if len(stack) < 3 or stack[0]:
        raise FormatError(f"{where}: its witness is no spend of a k-of-n script")
    script, output = Script.read(stack[-1]), outputs[point.vout]
    if output.script != script.output:
        raise ProofError(f"{where}: the output it spends is of another script than its witness")
    if len(stack) != 2 + script.threshold:
        raise ProofError(f"{where}: {len(stack) - 2} signatures, expected {script.threshold}")
    digest, signers, keys = (
        spend_digest(transaction, at, script, output.value),
        [],
        list(script.keys),
    )
    for signature in stack[1:-1]:
        while keys and not holds(keys[0], signature, digest):
            keys.pop(0)
        if not keys:
            raise ProofError(f"{where}: a signature is of none of the script's keys, in order")
        signers.append(keys.pop(0))
    return script, tuple(signers)


def spend_digest(transaction: Transaction, at: int, script: Script, value: int) -> bytes:
    """What the signatures of input ``at`` are over (BIP 143), which spends ``value`` satoshi."""
    points = [point.txid + point.vout.to_bytes(4, "little") for point in transaction.inputs]
    outputs = b"".join(
        each.value.to_bytes(8, "little", signed=True) + sized(each.script)
        for each in transaction.outputs
    )
    return double_sha256(
        transaction.stripped[:4]
        + double_sha256(b"".join(points))
        + double_sha256(b"".join(transaction.sequences))
        + points[at]
        + sized(script.raw)
        + value.to_bytes(8, "little", signed=True)
        + transaction.sequences[at]
        + double_sha256(outputs)
        + transaction.stripped[-4:]
        + _SIGHASH_ALL.to_bytes(4, "little")
    )


def sized(data: bytes) -> bytes:
    """With its CompactSize."""
    size = len(data)
    if size < 0xFD:
        return bytes([size]) + data
    width = 2 if size < 0x10000 else 4
    return bytes([{2: 0xFD, 4: 0xFE}[width]]) + size.to_bytes(width, "little") + data


def holds(key: bytes, signature: bytes, digest: bytes) -> bool:
    """Whether a compressed key signed a digest, all inputs and outputs of it: DER (BIP 66), then
    the hash type."""
    if signature[-1:] != bytes([_SIGHASH_ALL]):
        return False
    try:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), key)
        public.verify(signature[:-1], digest, ec.ECDSA(Prehashed(SHA256())))
    except (ValueError, InvalidSignature):
        return False
    return True
