"""Which epoch of a run has exactly these weights, and where the nearest one differs.

The digest of the weights at hand is made with the hash algorithm that each record names, and
compared with the records ``model/weights`` and ``training/epoch/N/state`` that count
(:mod:`provenance.models.stated`).

Weights that ranks share are one state: where each shard that the ranks recorded is the same
part of the weights at hand, and the shards cover them, all these records match.

Tensors are compared by the record's names for them (:mod:`provenance.models.names`).

Where no record has these weights, the nearest one (most tensors equal) is compared tensor by
tensor, by the UTF-8 bytes of their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

from provenance.evidence.lineage import Lineage
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.model_files import ModelFiles
from provenance.fingerprint.shards import state_problems
from provenance.fingerprint.tensors import StateDigest
from provenance.formats.record import Kind
from provenance.models.names import Naming, aliases_of, digest_as, naming
from provenance.models.stated import (
    StatedWeights,
    Tensors,
    parts_of,
    record_problem,
    shared_states,
    signed_counts,
    stated_weights,
    with_parts,
)
from provenance.verify.report import Seal, VerificationReport

NOT_CHECKED: Final = (
    "the networks, and whose key signs the ledger: the evidence's own was taken; "
    "provenance verify says more"
)

MatchOutcome = Literal["match", "no match", "unchecked"]
EXIT_CODES: Final[Mapping[str, int]] = {"match": 0, "no match": 1, "unchecked": 3}


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
            "parent": self.lineage and self.lineage.as_dict(),
            "not_checked": NOT_CHECKED,
        }


_UNDER_NO_ROOT: Final = ("late/", "unsealed/")


def match_model(report: VerificationReport, files: ModelFiles) -> ModelMatch:
    """Look for the weights among those that a run recorded; no node need have been asked. Raises as
    `ModelFiles.digests`."""
    records = [r for r in report.evidence.records if r.kind in (Kind.WEIGHTS, Kind.STATE)]
    in_time = sorted(records, key=lambda item: (item.place == "tree", item.ts, item.seq))
    problem_of = partial(record_problem, report, signed_counts(report.evidence))
    stated = [
        item
        for record in in_time
        if not record.withheld and (item := stated_weights(record, problem_of(record)))
    ]
    groups = shared_states(stated)
    states = _States(files, {item.algorithm for item in stated} & DIGEST_SIZES.keys())
    candidates = [*(part for group in groups for part in parts_of(group)), *groups]
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
    stated = with_parts([item for item in stated if item.path not in in_group])
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
