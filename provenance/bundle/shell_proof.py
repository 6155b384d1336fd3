"""Checking one record without this program: shell commands up to the run root."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from provenance.errors import FormatError, InputError
from provenance.formats.run_tree.proof import MAX_PROOF_BYTES, RunProof

UNHEX = "xxd -r -p"
"""Turns hex into bytes. Where there is no xxd: :data:`UNHEX_PYTHON`."""
UNHEX_PYTHON = "python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))'"
SHA256 = "sha256sum"
"""Prints the SHA-256 first. On macOS ``shasum -a 256``, anywhere ``openssl dgst -sha256 -r``."""


def shell_commands(
    proof: RunProof, record_file: str | Path, *, unhex: str = UNHEX, sha256: str = SHA256
) -> str:
    """The walk from a record file to the run root as shell commands.

    Every line can be run by itself; each prints the hash that its comment states. The last
    says whether the record is under the run root.

    Raises:
        ProofError: A level of the proof that cannot be.
    """
    cut = "cut -c 1-64"
    digest = proof.leaf_digest
    lines = [
        f"# {proof.path}: the SHA-256 of the file is the record's digest: {digest.hex()}",
        f"h=$({sha256} {shlex.quote(str(record_file))} | {cut}); echo $h",
    ]
    steps = iter(proof.steps())
    for level in proof.levels:
        for height in range(len(level.proof) + 1):
            step = next(steps)
            digest = step.apply(digest)
            entry = f"entry {level.index} of {level.size} in {level.node_path or 'the run'}"
            if height == 0:
                lines.append(f"# {entry}, as a leaf: {digest.hex()}")
            else:
                lines.append(f"# joined with its neighbour: {digest.hex()}")
            text = f"{step.prefix.hex()}%s{step.suffix.hex()}"
            lines.append(f"h=$(printf '{text}' $h | {unhex} | {sha256} | {cut}); echo $h")
    root = digest.hex()
    lines += [
        "# the run root:",
        f"[ $h = {root} ] && echo 'under run root {root}' || echo 'NOT under run root {root}'",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class RecordProof:
    """A record file of a bundle and its proof."""

    file: Path
    proof: RunProof

    def text(self) -> str:
        """:func:`shell_commands` of the file."""
        return shell_commands(self.proof, self.file)

    def to_json(self) -> str:
        """The proof, the file and the run root it leads to, as JSON text."""
        document = {
            "file": str(self.file),
            "run_root": self.proof.root().hex(),
            "proof": self.proof.to_json(),
            "commands": self.text().splitlines(),
        }
        return json.dumps(document)


def path_of_record_file(record: Path) -> RecordProof:
    """The proof that lies beside a bundle's record file.

    Raises:
        InputError: No such file, not a record of a bundle, or one without a proof.
        FormatError: A proof that does not decode.
    """
    if not record.is_file():
        raise InputError(f"{record}: no such record file")
    resolved = record.resolve()
    bundle = next((p for p in resolved.parents if (p / "manifest.json").is_file()), None)
    if bundle is None or not resolved.is_relative_to(bundle / "records"):
        raise InputError(f"{record}: not a record file of a bundle (<bundle>/records/....json)")
    name = resolved.relative_to(bundle / "records")
    proof_file = bundle / "proofs" / name
    try:
        with proof_file.open("rb") as file:
            data = file.read(MAX_PROOF_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{record}: is under no run root, so there is no path") from None
    except OSError as error:
        raise InputError(f"{proof_file}: cannot be read: {error.strerror}") from error
    try:
        return RecordProof(record, RunProof.from_json(data))
    except FormatError as error:
        raise FormatError(f"proofs/{name.as_posix()}: {error}") from error
