"""Models at hand, held against the records of a run and of its parents, and against each other.

What a file shows is worth what ties it to the records: so its digest is held against them first,
and a file that no record knows is told as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provenance.errors import InputError
from provenance.evidence.lineage import Claim
from provenance.evidence.sharing import (
    Sharing,
    TensorState,
    adapter_line,
    newest_state,
    sharing,
    state_at,
    when,
)
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.model_files import ModelFiles, read_model
from provenance.formats.run_tree.ranks import Piece
from provenance.lineage.files import Pruned, Quantised, merged, pruned, quantised, tensors_of
from provenance.lineage.graph import claims_of, records_of
from provenance.models.match import match_model
from provenance.verify.report import VerificationReport


class AtHand(NamedTuple):
    """What came out, for people.

    Attributes:
        ties: Whose weights each file has, by the records: the model's first, then A, B, ...
        shown: What the files show of each other.
        problems: Files that no record ties to the run, or to its parents; and a role that they
            contradict.
        tensors: The model's against each parent's.
    """

    ties: list[str]
    shown: list[str]
    problems: list[str]
    tensors: list[Sharing]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "tensors": [found.as_dict() for found in self.tensors]}


def hold(
    reports: Mapping[str, VerificationReport], run: str, model: Path, parents: Sequence[Path]
) -> AtHand:
    """Hold a run's model, and models of its parents, against the records, and then the model
    against these; without any, against the newest weights that each parent recorded.

    Args:
        reports: What verifying the run and its ancestors found, by id.

    Raises:
        InputError, FormatError, MissingExtraError: A model that cannot be read, or has several
            states.
    """
    own, others = read_model(model), [read_model(path) for path in parents]
    named = claims_of(records_of(reports[run].evidence))
    ancestors = [reports[str(claim.run)] for claim in named if claim.run in reports]
    found = AtHand([], [], [], [])
    tied = [(f"{model}", _of_runs(own, [reports[run]]), f"run {run}")]
    for at, (path, files) in enumerate(zip(parents, others, strict=True)):
        tie = _of_claims(files, named) or _of_runs(files, ancestors)
        tied.append((f"{chr(ord('A') + at)} = {path}", tie, f"a parent of run {run}"))
    for name, tie, whom in tied:
        if tie is None:
            found.problems.append(f"{name}: no record has these weights for those of {whom}")
        else:
            found.ties.append(f"{name}: {tie.line}")
    algorithm = HashFactory().algorithm
    for path, files in zip(parents, others, strict=True):
        _share(_state(own, algorithm), _state(files, algorithm), model, f"{path}", found)
    for parent in () if others else ancestors:
        records = records_of(parent.evidence)
        epoch = newest_state(records)
        state, of_parent = state_at(records, epoch), f"{when(epoch)} of run {parent.run}"
        algorithms = {piece.digest.partition(":")[0] for piece in state.pieces.values()}
        for stated in algorithms & DIGEST_SIZES.keys():
            _share(_state(own, stated), state, model, of_parent, found)
    if len(others) == 1:
        mine, theirs = tensors_of(own), tensors_of(others[0])
        entries: dict[str, Pruned | Quantised] = {
            "pruned": pruned(mine, theirs),
            "quantised": quantised(mine, theirs),
        }
        found.shown.extend(each.line for each in entries.values() if each.tensors)
        for role, each in entries.items():
            if each.holds or not any(claim.role == role for claim in named):
                continue
            begun = tied[0][1] is not None and None in tied[0][1].epochs
            if begun and each.contradiction and _is_meant(tied[1][1], role, named, reports):
                line = f"{model}: run {run} names itself {role} of {parents[0]}"
                found.problems.append(f"{line}: {each.contradiction}")
            else:
                found.shown.append(f"{model}: not shown that it is {role} of {parents[0]}")
    elif others:
        combination = merged(tensors_of(own), [tensors_of(files) for files in others])
        found.shown.append(combination.line)
        if not combination.holds and any(claim.role == "merged" for claim in named):
            found.shown.append(f"{model}: not shown that it is merged of these models")
    return found


class _Tie(NamedTuple):
    """Whose weights a file has: a claim's model, or epochs of a run (None: before training)."""

    line: str
    run: str | None = None
    epochs: frozenset[int | None] = frozenset()
    claim: Claim | None = None


def _of_claims(files: ModelFiles, named: Sequence[Claim]) -> _Tie | None:
    """That a run names these weights as a parent's; None where it does not."""
    for claim in named:
        if claim.weights is not None and claim.algorithm in DIGEST_SIZES:
            digests = files.digests(HashFactory(claim.algorithm)).values()
            if claim.weights in map(str, digests):
                line = f"the weights that the run names as the model {claim.model}"
                return _Tie(line, claim=claim)
    return None


def _of_runs(files: ModelFiles, reports: Sequence[VerificationReport]) -> _Tie | None:
    """Which epochs of a run have these weights; None where none of the runs has."""
    for report in reports:
        if matches := match_model(report, files).matches:
            of = "" if matches[-1].epoch is None else "of "
            line = f"the weights {of}{matches[-1].when} of run {report.run}"
            return _Tie(line, str(report.run), frozenset(match.epoch for match in matches))
    return None


def _is_meant(
    tie: _Tie | None, role: str, named: Sequence[Claim], reports: Mapping[str, VerificationReport]
) -> bool:
    """Whether a file has the weights that a run names in this role: a model's; of a run those of
    the epoch that it names, else of the last (docs/FORMAT.md, 3.5)."""
    if tie is None:
        return False
    if tie.claim is not None:
        return tie.claim.role == role
    for claim in named:
        if claim.run == tie.run and claim.role == role:
            last = newest_state(records_of(reports[str(claim.run)].evidence))
            return (last if claim.epoch is None else claim.epoch) in tie.epochs
    return False


def _share(
    child: TensorState, parent: TensorState, model: Path, of_parent: str, found: AtHand
) -> None:
    shared = sharing(child, parent, f"{model}", of_parent)
    if shared is not None:
        line = adapter_line(child, parent)
        found.shown.append(shared.line if line is None else f"{model} against {of_parent}: {line}")
        found.tensors.append(shared)


def _state(files: ModelFiles, algorithm: str) -> TensorState:
    if "" not in files.states:
        raise InputError(f"{files.files[0]}: several states, expected one")
    pieces = {}
    for tensor in files.digests(HashFactory(algorithm))[""].tensors:
        region = tuple((0, size) for size in tensor.shape)
        shape, digest = tuple(tensor.shape), str(tensor.digest)
        pieces[tensor.name] = Piece(0, tensor.name, tensor.dtype, shape, region, digest, False)
    return TensorState(pieces, {})
