"""What the records of a run state of its weights, which of them count, and their parts.

A record counts only where a verification of the evidence found nothing wrong with it: its bytes
have its digest, its producer signed that, for a run whose id commits to the key, the digest stands
in the tree of the newest run root, and that root stands in the ledger. The root that it states is
that of the tensors that it lists.

Weights that ranks share are one state: their records count together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from provenance.errors import FormatError
from provenance.evidence.run_evidence import RecordFile, RunEvidence, lenient
from provenance.fingerprint.fitted import boosters
from provenance.fingerprint.hashers import Digest
from provenance.fingerprint.model_state import TRAINABLE
from provenance.fingerprint.tensors import ROOT_ALGORITHM
from provenance.formats.fields import Fields
from provenance.formats.run_tree.ranks import Piece, pieces_of, state_root
from provenance.verify.catalogue import LEDGER, RECORDS, TREES
from provenance.verify.checks.content import left_out, state_problem
from provenance.verify.report import VerificationReport

_ADAPTER: Final = re.compile(r"adapter [\w.-]{1,60}")

Tensors = Mapping[str, Mapping[str, Any]]
"""name -> dtype, shape, digest as a record or `TensorDigest.as_fields` states them."""


@dataclass(frozen=True, slots=True)
class StatedWeights:
    """The weights that one record states.

    Attributes:
        epoch: None for the weights before training.
        digest: SHA-256 of the record, 32 bytes.
        root: As stated, such as ``mth-sha256:<hex>``.
        algorithm: Content hash of the tensors.
        tensors: None where the record states none, or others than its root is made of.
        problem: Why the record does not count; None where it does.
        pieces: The tensors, where they are what the root is made of.
        covers: What of the model they are.
        part: Where the tensors are a part of the record's, which and how many, or of two records'
            all; else empty.
    """

    path: str
    epoch: int | None
    rank: int
    digest: bytes
    root: str
    algorithm: str
    tensors: Tensors | None = field(default=None, repr=False)
    problem: str | None = None
    pieces: tuple[Piece, ...] = field(default=(), repr=False)
    covers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    part: str = ""

    @property
    def reused(self) -> dict[str, int]:
        """How many of the tensors the record did not read, by the record that did."""
        epochs = [t["read"] for t in (self.tensors or {}).values() if "read" in t]
        return Counter(
            f"epoch {epoch}" if type(epoch) is int else "the weights before training"
            for epoch in epochs
        )

    @property
    def not_covered(self) -> dict[str, list[str]]:
        """Names of what the model may compute with and no digest is of, by kind."""
        stated = left_out(self.covers).items()
        return {kind: [*map(str, names)] for kind, names in stated if isinstance(names, list)}

    @property
    def when(self) -> str:
        """``epoch 3``, or ``before training``; and which part of the record."""
        when = "before training" if self.epoch is None else f"epoch {self.epoch}"
        return f"{when} ({self.part})" if self.part else when

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "record": self.path,
            "record_sha256": self.digest.hex(),
            "epoch": self.epoch,
            "rank": self.rank,
            "weights": self.root,
            "algorithm": self.algorithm,
            "part": self.part,
            "reused": self.reused,
            "not_covered": self.not_covered,
            "problem": self.problem,
        }


def stated_weights(record: RecordFile, problem: str | None) -> StatedWeights | None:
    """None where the record's bytes are missing or state no digest of weights."""
    try:
        body = Fields.of(lenient(record.data).get("body"), record.path)
        root, algorithm = body.text("root"), body.text("algorithm")
    except FormatError:
        return None
    tensors = _tensors(body)
    try:
        pieces = pieces_of(record.rank, body.raw, record.path) if tensors else []
    except FormatError:
        pieces = []
    return StatedWeights(
        record.path,
        record.epoch,
        record.rank,
        record.digest,
        root,
        algorithm,
        tensors,
        problem,
        tuple(pieces),
        covers if isinstance(covers := body.raw.get("covers"), dict) else {},
    )


def with_parts(stated: Sequence[StatedWeights]) -> list[StatedWeights]:
    """The records, and what may be saved of each alone: each part, such as an adapter, and the base
    model without them; the booster of an estimator; and the whole model where an epoch states its
    trainable part, by the record before training."""
    found = []
    whole = next((item for item in reversed(stated) if item.epoch is None), None)
    all_names = whole.tensors.keys() if whole and whole.tensors else set()
    for item in stated:
        parts, only = item.covers.get("parts"), item.covers.get("only")
        if item.tensors is None or (all_names and all_names <= item.tensors.keys()):
            only = None  # all was trained
        found.append(replace(item, part=_label(str(only))) if only else item)
        if item.tensors is None:
            continue
        booster = [name for name in ("_Booster", "model") if name in item.tensors]
        if item.covers.get("adapter") in boosters.OF and 1 == len(booster) < len(item.tensors):
            share = _share("the booster alone", booster, item.tensors)
            alone = _part(item, share, booster)
            named = {name: {**item.tensors[name], "aliases": ["model"]} for name in booster}
            found.append(replace(alone, tensors=named))
        if isinstance(parts, dict):
            found += [_part(item, part, names) for part, names in _splits(parts, item.tensors)]
        if whole is None or not whole.tensors or whole.algorithm != item.algorithm:
            continue
        if only:
            tensors = {**whole.tensors, **item.tensors}
            both = replace(item, tensors=tensors, problem=item.problem or whole.problem)
            found.append(_part(both, "the rest as before training", tensors))
    return [item for item in found if item.tensors != {}]


def _label(name: str) -> str:
    """A part's name; any but an adapter's and what is trained in quotes, lest it be taken for words
    of this program."""
    known = name == TRAINABLE or _ADAPTER.fullmatch(name)
    return name if known else f"part {name[:60]!r}"


def _share(part: str, names: Collection[str], total: Collection[str]) -> str:
    """Which tensors a part has, the trainer says, and nobody can check."""
    return f"{part}: {len(names)} of the record's {len(total)} tensors, by the trainer's word"


def _splits(parts: Mapping[str, Any], names: Collection[str]) -> Iterator[tuple[str, set[str]]]:
    """What a record's tensors are split into, as ``covers.parts`` has it, and what no part has."""
    rest = set(names)
    for name, listed in parts.items():
        own = {key for key in listed if isinstance(key, str)} if isinstance(listed, list) else set()
        own &= set(names)
        rest -= own
        yield _share(_label(name), own, names), own
    if parts:
        base = any(_ADAPTER.fullmatch(name) for name in parts)
        without = ", ".join(repr(name[:60]) for name in parts)
        yield _share("base model" if base else f"without {without}", rest, names), rest


def _part(item: StatedWeights, part: str, names: Collection[str]) -> StatedWeights:
    tensors = {name: tensor for name, tensor in (item.tensors or {}).items() if name in names}
    values = {name: Digest.parse(str(t["digest"])).value for name, t in tensors.items()}
    root = f"{ROOT_ALGORITHM}:{state_root(values).hex()}"
    return replace(item, part=part, tensors=tensors, root=root)


def shared_states(stated: Sequence[StatedWeights]) -> list[list[StatedWeights]]:
    """The records that state one sharded state together, and count together or not at all: of
    each rank its last one of an epoch, then those before them.

    Args:
        stated: In order of time.
    """
    epochs: dict[int | None, dict[int, list[StatedWeights]]] = {}
    for item in (item for item in stated if item.pieces):
        epochs.setdefault(item.epoch, {}).setdefault(item.rank, []).append(item)
    groups = []
    for ranks in epochs.values():
        for back in range(1, 1 + max(map(len, ranks.values()))):
            group = [records[-back] for records in ranks.values() if len(records) >= back]
            problem = next((item.problem for item in group if item.problem), None)
            if any(piece.sharded for item in group for piece in item.pieces):
                groups.append(
                    [
                        replace(
                            item,
                            problem=item.problem or problem,
                            part=_label(str(only)) if (only := item.covers.get("only")) else "",
                        )
                        for item in group
                    ]
                )
    return groups


def signed_counts(evidence: RunEvidence) -> dict[bytes, int]:
    """How many of each producer's first records a statement covers whose chain can be made here: it
    goes on behind no hole."""
    seqs: dict[bytes, set[int]] = {}
    for record in evidence.records:
        seqs.setdefault(record.producer, set()).add(record.seq)
    found = {}
    for own in evidence.producers:
        here = seqs.get(own.producer, set())
        whole = next(number for number in range(len(here) + 1) if number not in here)
        found[own.producer] = max((s.count for s in own.statements if s.count <= whole), default=0)
    return found


def parts_of(group: Sequence[StatedWeights]) -> Iterator[list[StatedWeights]]:
    """The parts of a sharded state, each as the ranks state it together."""
    listed: dict[str, list[Any]] = {}
    for item in group:
        parts = item.covers.get("parts")
        for part, names in parts.items() if isinstance(parts, dict) else ():
            listed.setdefault(part, []).extend(names if isinstance(names, list) else ())
    for part, own in _splits(listed, {piece.name for item in group for piece in item.pieces}):
        found = []
        for item in group:
            tensors = {name: t for name, t in (item.tensors or {}).items() if name in own}
            pieces = tuple(piece for piece in item.pieces if piece.name in own)
            found.append(replace(item, part=part, tensors=tensors, pieces=pieces))
        if own:
            yield [item for item in found if item.pieces]


def record_problem(
    report: VerificationReport, signed: Mapping[bytes, int], record: RecordFile
) -> str | None:
    """What the verification found that touches this record, its producer, the run's key or the run
    root."""
    if record.place != "tree":
        return "no run root covers it"
    names = {record.path, record.file}
    for finding in report.findings:
        if names & {finding.subject, finding.path, finding.file}:
            return finding.problem
    producer = f"producer {record.producer.hex()[:8]}"
    for finding in report.findings:
        if finding.check == RECORDS and finding.subject in (producer, "run"):
            return f"{finding.subject}: {finding.problem}"
    if record.seq >= signed.get(record.producer, 0):
        return f"{producer}: nothing here shows that it signed event {record.seq}"
    if not report.seals:
        return "no run root covers it"
    seal = report.seals[-1]
    for finding in report.findings:
        if finding.check in (TREES, LEDGER) and finding.subject in (seal.label, "run"):
            return finding.problem
    return None if seal.recomputed else "the run root does not recompute"


def _tensors(body: Fields) -> Tensors | None:
    """The tensors of a record by name, where they are what its root is made of."""
    if "tensors" not in body.raw or state_problem(body.raw, body.file) is not None:
        return None
    return {item.text("name"): item.raw for item in body.objects("tensors")}
