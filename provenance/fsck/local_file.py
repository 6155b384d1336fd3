"""The files beside the database: the local anchor file, and the manager's journal.

A line of the anchor file is canonical JSON (RFC 8785): ``payload``, ``prev`` (SHA-256 of the
line before), ``seq``, ``signature`` (Ed25519 over a context and the rest), ``ts``, ``v``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from provenance.errors import BadSignatureError, InputError, NetworkUnavailable
from provenance.formats import json_text
from provenance.formats.ed25519 import verify_signature
from provenance.formats.record import canonical_json
from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.onchain import ChainTransaction, ChainView, Question
from provenance.proofs.local_file import LOCAL_CONTEXT, local_transaction_id


@dataclass(frozen=True, slots=True)
class LocalReader:
    """The local anchor file; without ``public_key`` no signature is verified."""

    path: Path
    public_key: bytes | None
    name: str = "local"

    def read(self, question: Question) -> ChainView:
        """Every line, and what is wrong with it."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise NetworkUnavailable(f"local: {self.path}: {error.strerror}") from error
        lines = data.split(b"\n")
        transactions: list[ChainTransaction] = []
        findings: list[Finding] = []
        if lines.pop():
            findings.append(self._damage(len(lines) + 1, "is cut off"))
        previous = "0" * 64
        for seq, line in enumerate(lines):
            payload, problem = read_line(line, self.public_key)
            if problem is None:
                raw = json_text.loads(line)
                if (raw.get("seq"), raw.get("prev")) != (seq, previous):
                    problem = "does not follow the line before"
            previous = hashlib.sha256(line).hexdigest()
            if problem is not None:
                findings.append(self._damage(seq + 1, problem))
            if payload is not None:
                transactions.append(
                    ChainTransaction(local_transaction_id(payload), "mined", payload, seq, 1, True)
                )
        identity = {"public_key": self.public_key.hex()} if self.public_key else {}
        unsigned = bool(lines) and self.public_key is None
        notes = ("local: the ledger's key is not here to verify lines",) if unsigned else ()
        return ChainView(
            identity, transactions, exclusive=True, notes=notes, findings=tuple(findings)
        )

    def _damage(self, number: int, problem: str) -> Finding:
        return FindingKind.CHAIN_DAMAGED(f"local line {number}", f"the line {problem}")


def read_line(line: bytes, public_key: bytes | None) -> tuple[bytes | None, str | None]:
    """The payload as far as it can be read, and the first thing that is wrong."""
    try:
        raw = json_text.loads(line)
        payload = bytes.fromhex(raw["payload"])
        signature = bytes.fromhex(raw["signature"])
        unsigned = {name: value for name, value in raw.items() if name != "signature"}
        signed = LOCAL_CONTEXT + canonical_json(unsigned)
        canonical = canonical_json(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return None, "is no anchor"
    if canonical != line or raw.get("v") != 1:
        return payload, "is not in canonical form"
    if public_key is not None:
        try:
            verify_signature(public_key, signature, signed, "local line")
        except BadSignatureError:
            return payload, "was changed, or signed by another key"
    return payload, None


def known_elsewhere(journal: Path) -> Sequence[str]:
    """Transactions that scripts made through the manager: the ids in its journal."""
    try:
        lines = journal.read_bytes().splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            found.append(str(json_text.loads(line)["transaction_id"]))
    return found
