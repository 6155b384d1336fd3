"""Checking one record without this program: shell commands up to the run root."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from provenance.bundle.attachments.opentimestamps import record_proofs
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MANIFEST
from provenance.errors import InputError, ProofError
from provenance.evidence.placement import newest_tree
from provenance.evidence.run_evidence import seal_label
from provenance.formats.run_tree.tree import RunProof
from provenance.ports.values import LedgerEntry

UNHEX = "xxd -r -p"
"""Turns hex into bytes. Where there is no xxd, Python does: ``bytes.fromhex``."""
SHA256 = "sha256sum"
"""Prints the SHA-256 first. On macOS ``shasum -a 256``, anywhere ``openssl dgst -sha256 -r``."""


def shell_commands(proof: RunProof, record_file: str | Path, *, seal: str = "") -> str:
    """The walk from a record file to the run root as shell commands. Each line can be run by itself
    and prints the hash that its comment states; the last says whether the record is under the run
    root, and where that stands (``seal``)."""
    cut = "cut -c 1-64"
    digest = proof.leaf_digest
    lines = [
        f"# {proof.path}: the SHA-256 of the file is the record's digest: {digest.hex()}",
        f"h=$({SHA256} {shlex.quote(str(record_file))} | {cut}); echo $h",
    ]
    steps = iter(proof.steps())
    for level in proof.levels:
        for height in range(len(level.proof) + 1):
            step = next(steps)
            digest = step.apply(digest)
            entry = f"entry {level.index} of {level.size} in {level.node_path or 'the run'}"
            made = "joined with its neighbour" if height else f"{entry}, as a leaf"
            lines.append(f"# {made}: {digest.hex()}")
            text = f"{step.prefix.hex()}%s{step.suffix.hex()}"
            lines.append(f"h=$(printf '{text}' $h | {UNHEX} | {SHA256} | {cut}); echo $h")
    root = digest.hex()
    said = f"under run root {root}" + (f": {seal}" if seal else "")
    lines += ["# the run root:", f"[ $h = {root} ] && echo '{said}' || echo 'NOT {said}'"]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class RecordProof:
    """A record file of a bundle, its proof, the seal whose root that leads to, the size of the
    first signed head over it, and its OpenTimestamps proof where a Bitcoin anchor is there or to
    come."""

    file: Path
    proof: RunProof
    entry: LedgerEntry
    head: int | None
    ots: bytes | None

    def text(self) -> str:
        """:func:`shell_commands` of the file."""
        head = "no head" if self.head is None else f"the head of size {self.head}"
        seal = f"seal {seal_label(self.entry)}, ledger entry {self.entry.index}, in {head}"
        return shell_commands(self.proof, self.file, seal=seal)

    def to_json(self) -> str:
        """The proof, the file, the run root it leads to and its seal, as JSON text."""
        document = {
            "file": str(self.file),
            "run_root": self.entry.root.hex(),
            "seal": seal_label(self.entry),
            "ledger_index": self.entry.index,
            "head_size": self.head,
            "proof": self.proof.to_json(),
            "commands": self.text().splitlines(),
        }
        return json.dumps(document)


def path_of_record_file(record: Path) -> RecordProof:
    """The proof of a bundle's record file, worked out from the bundle; ``InputError`` where it is
    none or under no run root, ``ProofError`` where the records lead to another root than the newest
    seal's, else as `read_bundle`."""
    if not str(record).isprintable():
        raise InputError(f"{record}: a path with control characters, expected one for a shell")
    if not record.is_file():
        raise InputError(f"{record}: no such record file")
    resolved = record.resolve()
    bundle = next((p for p in resolved.parents if (p / MANIFEST).is_file()), None)
    if bundle is None or not resolved.is_relative_to(bundle / "records"):
        raise InputError(f"{record}: not a record file of a bundle (<bundle>/records/....json)")
    name, evidence = resolved.relative_to(bundle).as_posix(), read_bundle(bundle)
    item = next((r for r in evidence.records if r.file == name and r.place == "tree"), None)
    tree = newest_tree(evidence)
    if item is None or tree is None:
        raise InputError(f"{record}: is under no run root, so there is no path")
    entry = evidence.entries[-1]
    if tree.root != entry.root:
        newest = f"which is not that of run.json's newest seal, {entry.root.hex()}"
        raise ProofError(f"{name}: leads to run root {tree.root.hex()}, {newest}")
    heads = [head.size for head in evidence.heads if head.size > entry.index]
    ots = record_proofs(evidence, tree, [item]).get(f"{name}.ots")
    return RecordProof(record, tree.proof(item.path), entry, min(heads, default=None), ots)
