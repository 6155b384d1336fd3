"""Partially signed Bitcoin transactions: what one would do, who signed it, and the whole of it.

BIP 174, version 0: what Bitcoin Core, Sparrow and hardware wallets pass around, as base64. Of it
count the transaction itself, the transactions whose outputs it spends, and signatures. Whatever
else a wallet writes into one is kept and not read.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from provenance.errors import FormatError, ProofError, TooLargeError
from provenance.proofs.bitcoin import (
    OP_RETURN,
    SEGWIT_MARKER,
    Output,
    Reader,
    Transaction,
    display,
    parse_transaction,
)
from provenance.proofs.multisig.bitcoin import Script, holds, sized, spend_digest

MAX_PSBT_BYTES: Final = 1_000_000
_MAGIC: Final = b"psbt\xff"
_UNSIGNED, _SPENT, _SIGNATURE = b"\x00", b"\x00", 0x02
"""Keys of the global map, and of an input's: PSBT_GLOBAL_UNSIGNED_TX, PSBT_IN_NON_WITNESS_UTXO,
PSBT_IN_PARTIAL_SIG."""
_SIGNATURE_BYTES: Final = 73
"""The most that one takes, its size included."""
_Map = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Psbt:
    """A transaction that spends from one k-of-n script, as far as it is signed.

    Attributes:
        transaction: Without signatures; its id is that of the whole.
        spent: Of each input, the transaction that made the output it spends.
        head, inputs, outputs: The maps of BIP 174.
    """

    transaction: Transaction
    spent: tuple[bytes, ...]
    head: _Map
    inputs: tuple[_Map, ...]
    outputs: tuple[_Map, ...]

    @classmethod
    def read(cls, text: str) -> Psbt:
        """From base64. Raises FormatError: no PSBT of version 0, or one without the transactions
        whose outputs it spends."""
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except ValueError as error:
            raise FormatError("PSBT: found something else than base64") from error
        if len(raw) > MAX_PSBT_BYTES:
            raise TooLargeError(f"PSBT of {len(raw)} bytes, at most {MAX_PSBT_BYTES}")
        reader = Reader(raw, "PSBT")
        if raw[: len(_MAGIC)] != _MAGIC:
            raise FormatError("PSBT: found another file, expected one that begins with psbt")
        reader.take(len(_MAGIC))
        head = _read_map(reader)
        if _UNSIGNED not in head:
            raise FormatError("PSBT: no unsigned transaction in it, expected version 0 (BIP 174)")
        transaction = parse_transaction(head[_UNSIGNED])
        if transaction.stripped != head[_UNSIGNED]:
            raise FormatError("PSBT: its transaction has a witness, expected none")
        inputs = tuple(_read_map(reader) for _ in transaction.inputs)
        outputs = tuple(_read_map(reader) for _ in transaction.outputs)
        reader.end()
        spent = tuple(fields.get(_SPENT, b"") for fields in inputs)
        for point, made in zip(transaction.inputs, spent, strict=True):
            if not made or parse_transaction(made).txid != point.txid:
                problem = "the transaction that made it is not there"
                raise FormatError(f"PSBT: input {point.shown}: {problem}")
        return cls(transaction, spent, head, inputs, outputs)

    def encode(self) -> str:
        """As base64."""
        maps = (self.head, *self.inputs, *self.outputs)
        return base64.b64encode(_MAGIC + b"".join(map(_write_map, maps))).decode()

    @property
    def signatures(self) -> list[dict[bytes, bytes]]:
        """Of each input, by compressed key: DER and a hash type."""
        return [{k[1:]: v for k, v in own.items() if k[0] == _SIGNATURE} for own in self.inputs]

    @property
    def fee(self) -> int:
        """Satoshi."""
        spent = sum(self._spends(at).value for at in range(len(self.inputs)))
        return spent - sum(output.value for output in self.transaction.outputs)

    def vsize(self, script: Script) -> int:
        """The most virtual bytes (BIP 141) that it has when k have signed."""
        signatures = 1 + script.threshold * _SIGNATURE_BYTES
        witness = len(self.inputs) * (1 + signatures + len(sized(script.raw)))
        return len(self.transaction.stripped) + (len(SEGWIT_MARKER) + witness + 3) // 4

    def check(self, payload: bytes, script: Script, max_fee_rate: float) -> None:
        """Refuse one that does anything else than anchor the payload with coins of the script.

        Args:
            max_fee_rate: sat/vB.

        Raises:
            ProofError: Another or a second payload, a coin or a change output of another script, a
                fee above the cap or below nothing.
        """
        outputs = self.transaction.outputs
        data = [output for output in outputs if output.script[:1] == bytes([OP_RETURN])]
        if len(data) != 1 or self.transaction.data != (payload,) or data[0].value:
            found = ", ".join(push.hex() for push in self.transaction.data) or "none"
            raise ProofError(f"PSBT: found payload {found}, expected {payload.hex()} once, unpaid")
        change = [output for output in outputs if output not in data]
        if len(change) > 1 or any(output.script != script.output for output in change):
            raise ProofError("PSBT: it pays somebody else, expected change to the same script")
        for at in range(len(self.inputs)):
            if self._spends(at).script != script.output:
                raise ProofError(f"PSBT: input {at} is no coin of the script of the owners")
        if not 0 <= self.fee <= max_fee_rate * self.vsize(script):
            rate = self.fee / self.vsize(script)
            most = f"at most {max_fee_rate:g} (max_fee_rate)"
            raise ProofError(f"PSBT: found a fee of {rate:.1f} sat/vB, expected {most}")

    def signers(self, script: Script) -> tuple[bytes, ...]:
        """The keys that signed every input, in order. Raises ProofError: a signature that does not
        hold, or is of no key of the script."""
        signed = []
        for at, signatures in enumerate(self.signatures):
            digest = spend_digest(self.transaction, at, script, self._spends(at).value)
            for key, signature in signatures.items():
                if key not in script.keys or not holds(key, signature, digest):
                    raise ProofError(f"PSBT: input {at}: no signature of owner {key.hex()}")
            signed.append(set(signatures))
        return tuple(sorted(set.intersection(*signed)))

    def joined(self, other: Psbt) -> Psbt:
        """With the signatures of another copy beside its own. Raises ProofError: it is of another
        transaction; says what differs."""
        mine, theirs = self.transaction, other.transaction
        if mine.stripped != theirs.stripped:
            what = "version or lock time"
            if mine.inputs != theirs.inputs or mine.sequences != theirs.sequences:
                what = "inputs"
            elif mine.outputs != theirs.outputs:
                what = "outputs" if mine.data == theirs.data else "payload"
            raise ProofError(f"PSBT: it has another {what} than the one that was to be signed")
        added = [
            {bytes([_SIGNATURE]) + key: value for key, value in signatures.items()}
            for signatures in other.signatures
        ]
        both = ({**new, **own} for own, new in zip(self.inputs, added, strict=True))
        return replace(self, inputs=tuple(both))

    def whole(self, script: Script) -> bytes:
        """The signed transaction, with the signatures of the first k keys (BIP 144). Raises
        ProofError: fewer than k signed."""
        signers = self.signers(script)
        if len(signers) < script.threshold:
            raise ProofError(f"PSBT: {len(signers)} of {script.threshold} owners signed")
        raw, locktime = self.transaction.stripped[:-4], self.transaction.stripped[-4:]
        witness = b"".join(
            bytes([2 + script.threshold])
            + b"\x00"
            + b"".join(sized(signatures[key]) for key in signers[: script.threshold])
            + sized(script.raw)
            for signatures in self.signatures
        )
        return raw[:4] + SEGWIT_MARKER + raw[4:] + witness + locktime

    def _spends(self, at: int) -> Output:
        point, outputs = self.transaction.inputs[at], parse_transaction(self.spent[at]).outputs
        if point.vout >= len(outputs):
            raise ProofError(f"PSBT: {display(point.txid)} has no output {point.vout}")
        return outputs[point.vout]


def _read_map(reader: Reader) -> _Map:
    fields: dict[bytes, bytes] = {}
    while size := reader.size(MAX_PSBT_BYTES):
        key = reader.take(size)
        if key in fields:
            raise FormatError(f"PSBT: key {key.hex()[:20]} stands twice in one map")
        fields[key] = reader.take(reader.size(MAX_PSBT_BYTES))
    return fields


def _write_map(fields: _Map) -> bytes:
    return b"".join(sized(key) + sized(value) for key, value in fields.items()) + b"\x00"
