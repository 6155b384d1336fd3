"""The rules of a policy about the model: its weights, and what lies beside them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from provenance.evidence.run_evidence import lenient
from provenance.files import errors_of
from provenance.fingerprint.hashers import DIGEST_SIZES, HashFactory
from provenance.fingerprint.model_files import INDEXES, KERAS, PICKLES, TORCH
from provenance.fingerprint.networks.keras_files import STRUCTURE, beside_variables
from provenance.fingerprint.weight_files import open_zip
from provenance.formats.record import Kind
from provenance.gate.policy import Policy
from provenance.gate.rules import RuleResult, result, sealed, some
from provenance.models.match import ModelMatch
from provenance.models.signature import ModelFolder
from provenance.models.stated import StatedWeights, record_problem, signed_counts
from provenance.verify.report import VerificationReport


def model_rules(
    policy: Policy, report: VerificationReport, match: ModelMatch, folder: ModelFolder
) -> Iterator[RuleResult]:
    """Whether the weights are the run's, of which epoch, and what lies beside them."""
    counting = [item for item in match.matches if policy.parts or not item.part]
    yield _weights(match, counting)
    if counting:
        yield _epoch(policy, report, counting)
    recorded = _artifacts(report)
    yield from _architecture(policy, match, recorded)
    yield _files(policy, match, folder, recorded)


def _weights(match: ModelMatch, counting: Sequence[StatedWeights]) -> RuleResult:
    expected = f"exactly weights that run {match.run} recorded, and no others beside them"
    left = [*match.left, *(f"{name}: was not compared" for name in match.files.below())]
    if match.matches and left:
        return result("model", False, some(left), expected)
    if counting:
        return result("model", True, f"the weights of {counting[-1].when}", expected)
    if match.matches:
        part = match.matches[-1].part
        return result("model", False, f"only a part of a recorded state: {part}", expected)
    unchecked = match.outcome == "unchecked"
    if match.doubtful:
        item = match.doubtful[-1]
        found = f"those of {item.path}, which does not count: {item.problem}"
    elif match.nearest is not None:
        near = match.nearest
        tensor = f"tensor {near.tensor!r} " if near.tensor is not None else ""
        found = f"weights of no epoch; nearest is {near.stated.when}, where {tensor}{near.problem}"
    else:
        found = "no recorded weights to compare with"
    return result("model", None if unchecked else False, found, expected)


def _epoch(
    policy: Policy, report: VerificationReport, counting: Sequence[StatedWeights]
) -> RuleResult:
    found = ", ".join(dict.fromkeys(item.when for item in counting))
    epochs = {item.epoch for item in counting}
    if policy.epoch == "any":
        return result("epoch", True, found, "any")
    if policy.epoch == "trained":
        return result("epoch", epochs != {None}, found, "weights of an epoch, not before training")
    last = max((r.epoch for r in sealed(report) if r.epoch is not None), default=None)
    return result("epoch", last is not None and last in epochs, found, f"the last epoch, {last}")


def _artifacts(report: VerificationReport) -> Callable[[str, Path], bool]:
    """Whether the run recorded a file as an artifact: under its whole name in the folder, with
    these bytes."""
    signed = signed_counts(report.evidence)
    artifacts = {
        (str(body.get("name")), str(body.get("digest")))
        for record in sealed(report, Kind.ARTIFACT)
        if record_problem(report, signed, record) is None
        and isinstance(body := lenient(record.data).get("body"), dict)
    }

    def recorded(name: str, path: Path) -> bool:
        known = {text.partition(":")[0] for own, text in artifacts if own == name}
        factories = (HashFactory(algorithm) for algorithm in known & DIGEST_SIZES.keys())
        return any((name, str(factory.digest_file(path))) in artifacts for factory in factories)

    return recorded


def _architecture(
    policy: Policy, match: ModelMatch, recorded: Callable[[str, Path], bool]
) -> Iterator[RuleResult]:
    """A Keras file makes layers of what it holds beside its variables, and no record states that
    whole: a structure is held as a part of the file."""
    file = match.files.files[0]
    inside = beside_variables(str(file)) if file.suffix in KERAS else []
    if not inside:
        return
    allowed = STRUCTURE if policy.architecture == "unchecked" else frozenset[str]()
    odd = [name for name in inside if name not in allowed]
    found = f"{some(odd or inside)} in {file.name}, which nothing was compared with"
    expected = "variables alone (.weights.h5), or the whole file recorded as an artifact"
    yield result("architecture", not odd or recorded(file.name, file), found, expected)


def _files(
    policy: Policy,
    match: ModelMatch,
    folder: ModelFolder,
    recorded: Callable[[str, Path], bool],
) -> RuleResult:
    """Beside the weights only artifacts of the run, and what the policy names and is no pickle."""
    expected = "no file but the weights, artifacts of the run and those that the policy names"
    weights = {file.resolve() for file in match.files.files}
    index = next((name for name in INDEXES if any(f.name == name for f in folder.files)), None)
    unknown = []
    for item in folder.files:
        if item.path.resolve() in weights or item.name == index:  # by which the weights were read
            continue
        named = any(_fits(item.name, pattern) for pattern in policy.files)
        if (not named or _is_pickle(item.path)) and not recorded(item.name, item.path):
            unknown.append(f"{item.name} (a pickle)" if named else item.name)
    return result("files", not unknown, some(unknown) or "none", expected)


def _fits(name: str, pattern: str) -> bool:
    """Part by part: ``*.json`` is no file in a subfolder."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _is_pickle(path: Path) -> bool:
    """Whether a file is one that torch or pickle load, by its name; or begins as a pickle of
    protocol 2 or later, or is torch's zip of one, whatever its name. ``InputError`` where it cannot
    be read, ``FormatError`` for a zip that does not list its members."""
    if path.suffix.lower() in (*TORCH, *PICKLES):
        return True
    with errors_of(path, "read"):
        with path.open("rb") as file:
            start = file.read(2)
        zipped = zipfile.is_zipfile(path)
    if zipped:
        with open_zip(path, str(path)) as archive:
            return any(name.endswith(PICKLES) for name in archive.namelist())
    return start[:1] == pickle.PROTO and 2 <= start[-1] <= pickle.HIGHEST_PROTOCOL
