"""Which epoch of a run has exactly these weights, and where the nearest one differs.

The digest of the weights at hand is made with the hash algorithm that each record names, and
compared with the records ``model/weights`` and ``training/epoch/N/state``. A record counts only
where a verification of the evidence found nothing wrong with it: its bytes have its digest, its
producer signed that, for a run whose id commits to the key, the digest stands in the tree of the
newest run root, and that root stands in the ledger. The root that it states is that of the tensors
that it lists.

Weights that ranks share are one state: where each shard that the ranks recorded is the same
part of the weights at hand, and the shards cover them, all these records match.

Tensors are compared by the record's names for them (:mod:`provenance.models.names`).

Where no record has these weights, the nearest one (most tensors equal) is compared tensor by
tensor, by the UTF-8 bytes of their names.

Over 400 lines: what a record states, what came out and the nearest are one comparison.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

from provenance.errors import FormatError
from provenance.evidence.lineage import Lineage
from provenance.evidence.run_evidence import RecordFile, RunEvidence, lenient
from provenance.fingerprint.fitted import boosters
from provenance.fingerprint.hashers import DIGEST_SIZES, Digest, HashFactory
from provenance.fingerprint.model_files import ModelFiles
from provenance.fingerprint.model_state import TRAINABLE
from provenance.fingerprint.shards import state_problems
from provenance.fingerprint.tensors import ROOT_ALGORITHM, StateDigest
from provenance.formats.fields import Fields
from provenance.formats.record import Kind
from provenance.formats.run_tree.ranks import Piece, pieces_of, state_root
from provenance.models.names import Naming, aliases_of, digest_as, naming
from provenance.verify.catalogue import LEDGER, RECORDS, TREES
from provenance.verify.checks.content import state_problem
from provenance.verify.report import Seal, VerificationReport

NOT_CHECKED: Final = (
    "the networks, and whose key signs the ledger: the evidence's own was taken; "
    "provenance verify says more"
)

MatchOutcome = Literal["match", "no match", "unchecked"]
EXIT_CODES: Final[Mapping[str, int]] = {"match": 0, "no match": 1, "unchecked": 3}

_NO_WEIGHTS: Final = {"optimizer", "metrics", "seeds", "of the wrapper", "graph"}
"""Kinds in ``covers.not`` that no model computes its output with."""

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
        stated = self.covers.get("not")
        return {
            kind: [str(name) for name in names]
            for kind, names in (stated.items() if isinstance(stated, dict) else ())
            if kind not in _NO_WEIGHTS and isinstance(names, list) and names
        }

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


@dataclass(frozen=True, slots=True)
class Difference:
    """How the weights at hand differ from those that a record states.

    Attributes:
        tensor: The first one that differs; None where the record names no tensors.
        differing: How many tensors differ, are missing or are extra; of ``total`` names.
    """

    stated: StatedWeights
    tensor: str | None
    problem: str
    differing: int
    total: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        counts = {"differing": self.differing, "total": self.total}
        difference = {"tensor": self.tensor, "difference": self.problem}
        return self.stated.as_dict() | difference | counts


@dataclass(frozen=True, slots=True)
class ModelMatch:
    """What came out.

    Attributes:
        seal: The newest seal of the run; None where there is none.
        origin: The ledger's name, where the evidence has its key.
        state: Which of the file's states matched or came nearest; ``""`` is the whole file.
        weights: Its digest; None where there was nothing to compare with.
        matches: Records that count and have exactly these weights, by epoch and rank.
        doubtful: Records that state these weights, and do not count.
        nearest: Where there is no match.
        withheld: Paths of records whose weights are not disclosed.
        damaged: Records of weights with something wrong, as ``path: problem``.
        others: Findings of the verification that are not about a matching record.
        names: What was done to names that differ from the record's, in words.
        left: What else in the file or the folder holds weights, as ``name: problem``, where some
            of it has a match.
        lineage: The run that this one says it continues, such as the one whose adapter a merged
            model has; None where it says nothing.
    """

    run: UUID
    seal: Seal | None
    origin: str | None
    files: ModelFiles
    state: str
    weights: StateDigest | None
    matches: tuple[StatedWeights, ...]
    doubtful: tuple[StatedWeights, ...]
    nearest: Difference | None
    withheld: tuple[str, ...]
    damaged: tuple[str, ...]
    others: int
    names: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    lineage: Lineage | None = None

    @property
    def outcome(self) -> MatchOutcome:
        """``unchecked`` where a withheld or unsealed record may have them, or there is none; and
        where other weights are left."""
        if self.matches:
            return "unchecked" if self.left else "match"
        sealed = [item for item in self.doubtful if not item.path.startswith(_UNDER_NO_ROOT)]
        if sealed or self.damaged:
            return "no match"
        if self.doubtful or self.withheld or self.nearest is None:
            return "unchecked"
        return "no match"

    @property
    def exit_code(self) -> int:
        """0 match, 1 no match, 3 could not be said."""
        return EXIT_CODES[self.outcome]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "v": 1,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "run_id": str(self.run),
            "seal": self.seal.as_dict() if self.seal else None,
            "ledger": self.origin,
            "files": [str(file) for file in self.files.files],
            "state": self.state,
            "weights": str(self.weights) if self.weights else None,
            "algorithm": self.weights.algorithm if self.weights else None,
            "tensors": len(self.weights.tensors) if self.weights else None,
            "elements": self.weights.element_count if self.weights else None,
            "matches": [item.as_dict() for item in self.matches],
            "doubtful": [item.as_dict() for item in self.doubtful],
            "nearest": self.nearest.as_dict() if self.nearest else None,
            "withheld": list(self.withheld),
            "damaged": list(self.damaged),
            "other_findings": self.others,
            "names": list(self.names),
            "left": list(self.left),
            "aside": list(self.files.aside),
            "below": self.files.below(),
            "parent": self.lineage and self.lineage._asdict(),
            "not_checked": NOT_CHECKED,
        }


_ADAPTER: Final = re.compile(r"adapter [\w.-]{1,60}")
_UNDER_NO_ROOT: Final = ("late/", "unsealed/")


def match_model(report: VerificationReport, files: ModelFiles) -> ModelMatch:
    """Look for the weights among those that a run recorded; no node need have been asked. Raises as
    `ModelFiles.digests`."""
    records = [r for r in report.evidence.records if r.kind in (Kind.WEIGHTS, Kind.STATE)]
    in_time = sorted(records, key=lambda item: (item.place == "tree", item.ts, item.seq))
    problem_of = partial(_problem, report, _signed(report.evidence))
    stated = [
        item
        for record in in_time
        if not record.withheld and (item := _stated(record, problem_of(record)))
    ]
    groups = _shared(stated)
    states = _States(files, {item.algorithm for item in stated} & DIGEST_SIZES.keys())
    candidates = [*(part for group in groups for part in _parts_of(group)), *groups]
    shared = [
        (group, key, problems)
        for key in files.states
        for group, problems in states.shared_problems(candidates, key)
    ]
    equal = [
        (item, key)
        for group, key, problems in shared
        if not any(problems.values())
        for item in group
    ]
    in_group = {item.path for group in groups for item in group}
    stated = _with_parts([item for item in stated if item.path not in in_group])
    equal += [
        (item, key)
        for item in stated
        for key in states.keys(item)
        if str(states.digest(item, key)) == item.root
    ]
    matches = sorted((item for item, _ in equal if item.problem is None), key=_order)
    doubtful = sorted((item for item, _ in equal if item.problem is not None), key=_order)
    nearest, state = (None, "") if equal else _nearest(stated, states)
    for group, key, problems in [] if equal else shared:
        near = _summed(group[0], problems)
        if nearest is None or near.total - near.differing >= nearest.total - nearest.differing:
            nearest, state = near, key
    chosen = nearest.stated if nearest else None
    if equal:
        chosen = (matches or doubtful)[-1]
        state = next(key for item, key in equal if item is chosen)
    found = {key for item, key in equal if item.problem is None}
    paths, vkey = {item.path for item in matches}, report.evidence.vkey
    return ModelMatch(
        run=report.run,
        seal=report.seals[-1] if report.seals else None,
        origin=vkey.partition("+")[0] if vkey else None,
        files=files,
        state=state,
        weights=states.digest(chosen, state) if chosen else None,
        matches=tuple(matches),
        doubtful=tuple(doubtful),
        nearest=nearest,
        withheld=tuple(record.path for record in records if record.withheld),
        damaged=tuple(
            f"{record.path}: {problem}"
            for record in records
            if record.place == "tree" and (problem := problem_of(record)) is not None
        ),
        others=sum(finding.subject not in paths for finding in report.findings),
        names=states.notes(chosen, state) if chosen else (),
        left=tuple(files.left(found)) if found else (),
        lineage=report.lineage,
    )


class _States:
    """The states of the files, by the names of the record that each is compared with."""

    def __init__(self, files: ModelFiles, algorithms: Iterable[str]) -> None:
        self._files = files
        self._own = {algorithm: files.digests(HashFactory(algorithm)) for algorithm in algorithms}
        self._renamed: dict[object, StateDigest] = {}

    def keys(self, item: StatedWeights) -> Iterable[str]:
        """The states to compare a record with; its parts with those that have no more tensors than
        the part has names."""
        states = self._own.get(item.algorithm, {})
        if not item.part or item.tensors is None:
            return states
        aliases = (tensor.get("aliases") for tensor in item.tensors.values())
        names = sum(1 + len(own) if isinstance(own, list) else 1 for own in aliases)
        return [key for key, state in states.items() if len(state.tensors) <= names]

    def naming(self, item: StatedWeights, key: str) -> Naming:
        tensors = self._own[item.algorithm][key].tensors
        names = [tensor.name for tensor in tensors]
        if item.tensors is None or item.tensors.keys() == set(names):
            return Naming({name: name for name in names})
        one = {t.name for t in tensors if t.dtype[0] in "IU" and math.prod(t.shape) == 1}
        return naming(item.tensors, names, one)

    def shared_problems(
        self, groups: Iterable[list[StatedWeights]], key: str
    ) -> Iterator[tuple[list[StatedWeights], dict[str, str | None]]]:
        """How a state differs from each that ranks stated together, by tensor."""
        alike: dict[tuple[tuple[tuple[str, str], ...], frozenset[str]], list[Any]] = {}
        for group in groups:
            tensors = {name: t for item in group for name, t in (item.tensors or {}).items()}
            whole = replace(group[0], tensors=tensors)
            if key in self.keys(whole):
                named = self.naming(whole, key)
                alike.setdefault((tuple(named.names.items()), named.aside), []).append(group)
        for (pairs, aside), own in alike.items():  # each reads the state once
            names = dict(pairs)
            raw = (t for t in self._files.tensors(key) if t.name not in aside)
            renamed = (tensor._replace(name=names[tensor.name]) for tensor in raw)
            pieces = [[piece for item in group for piece in item.pieces] for group in own]
            yield from zip(own, state_problems(pieces, renamed), strict=True)

    def notes(self, item: StatedWeights, key: str) -> tuple[str, ...]:
        return self.naming(item, key).notes(self.digest(item, key))

    def digest(self, item: StatedWeights, key: str) -> StateDigest:
        own, named = self._own[item.algorithm][key], self.naming(item, key)
        if named.is_plain:
            return own
        asked = (item.algorithm, key, tuple(named.names.items()))
        if asked not in self._renamed:
            factory = HashFactory(item.algorithm)
            tensors = partial(self._files.tensors, key)
            self._renamed[asked] = digest_as(named, own, tensors, factory)
        return self._renamed[asked]


def _order(item: StatedWeights) -> tuple[int, bool, int, str]:
    """A whole record comes after a part of the same epoch."""
    return (-1 if item.epoch is None else item.epoch, not item.part, item.rank, item.path)


def _stated(record: RecordFile, problem: str | None) -> StatedWeights | None:
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


def _with_parts(stated: Sequence[StatedWeights]) -> list[StatedWeights]:
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


def _shared(stated: Sequence[StatedWeights]) -> list[list[StatedWeights]]:
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


def _signed(evidence: RunEvidence) -> dict[bytes, int]:
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


def _parts_of(group: Sequence[StatedWeights]) -> Iterator[list[StatedWeights]]:
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


def _problem(
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


def _nearest(stated: Sequence[StatedWeights], states: _States) -> tuple[Difference | None, str]:
    """The record that most tensors are equal with, and the state of the file that has them."""
    best: tuple[tuple[int, ...], StatedWeights, str, Tensors] | None = None
    for item in stated:
        for key in states.keys(item):
            tensors = {t.name: t.as_fields() for t in states.digest(item, key).tensors}
            epoch, _, rank, _ = _order(item)
            sound = int(item.problem is None)
            likeness = (*_likeness(item.tensors or {}, tensors), sound, epoch, -rank)
            if best is None or likeness > best[0]:
                best = (likeness, item, key, tensors)
    if best is None:
        return None, ""
    return _difference(best[1], best[3]), best[2]


def _likeness(stated: Tensors, actual: Tensors) -> tuple[int, int]:
    """How many tensors are equal; how many have at least a name in common."""
    common = stated.keys() & actual.keys()
    equal = sum(stated[name]["digest"] == actual[name]["digest"] for name in common)
    return equal, len(common)


_UTF8: Final = ("utf-8", "surrogatepass")


def _difference(item: StatedWeights, actual: Tensors) -> Difference:
    if item.tensors is None:
        why = "the record has no digests of single tensors to compare with"
        return Difference(item, None, why, 0, 0)
    names = sorted(item.tensors.keys() | actual.keys(), key=lambda name: name.encode(*_UTF8))
    problems = {name: _tensor(item.tensors.get(name), actual.get(name)) for name in names}
    for alias, name in aliases_of(item.tensors).items():
        if alias in actual:
            problems[alias] = f"is in the record another name of {name!r}, from which it differs"
    return _summed(item, problems)


def _summed(item: StatedWeights, problems: Mapping[str, str | None]) -> Difference:
    differing = [(name, problem) for name, problem in problems.items() if problem is not None]
    tensor, problem = differing[0]
    return Difference(item, tensor, problem, len(differing), len(problems))


def _tensor(stated: Mapping[str, Any] | None, actual: Mapping[str, Any] | None) -> str | None:
    """What is the matter with one tensor; None where it is the same."""
    if actual is None:
        return "is missing"
    if stated is None:
        return "is not in the record"
    if stated["digest"] == actual["digest"]:
        return None
    for key in ("dtype", "shape"):
        if stated.get(key) != actual[key]:
            return f"has {key} {actual[key]}, the record states {stated.get(key)}"
    return f"has digest {actual['digest']}, the record states {stated['digest']}"
