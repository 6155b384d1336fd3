"""The parents that a trainer names, as a configuration record has them (docs/FORMAT.md, 3.5).

Life of a parent: the caller names a run, a bundle, a model's files or a revision of the Hugging
Face Hub; what lies on this machine is read here, once, before the training begins, and nothing is
ever downloaded; the record has its run id and root, or its name and the root of its weights.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from provenance.errors import InputError, ProvenanceError
from provenance.evidence.lineage import MAX_PARENTS, ROLES
from provenance.files import errors_of
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.record import MAX_SAFE_INTEGER, Json
from provenance.log import get_logger

log = get_logger("provenance")
_HUB: Final = re.compile(r"hf:([\w.-]{1,96})/([\w.-]{1,96})@([0-9a-f]{40})", re.ASCII)
_EXPECTED: Final = (
    "a run id or a tracker, the path of a bundle or a model, or hf:OWNER/NAME@REVISION with 40 "
    "digits; or {source, role, epoch}, or a list of these"
)
_CONFIGURED: Final = ("parent", "parent_model")


def stated_parents(given: object, factory: HashFactory) -> Json:
    """The field ``parent`` of a configuration record: an object, or of several parents a list.

    Args:
        given: A run's id, or what has a ``run_id``, such as a tracker; the path of a bundle, or of
            a model's file or folder; ``hf:OWNER/NAME@REVISION``; a mapping ``{source, role,
            epoch}`` of one of these, where the last two may be missing; or a sequence of all that.
        factory: Hashes a model's files.

    Raises:
        InputError: Something else; the message has what was found.
        FormatError, IntegrityError, MissingExtraError: A bundle or a model that cannot be read.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not 0 < len(given) <= MAX_PARENTS:
            raise InputError(f"parent: found {len(given)}, expected 1 to {MAX_PARENTS}")
        parents: list[Json] = [_parent(item, factory) for item in given]
        return parents if len(parents) > 1 else parents[0]
    return _parent(given, factory)


def configured_parents(training: Mapping[str, Json], factory: HashFactory) -> Json:
    """The same of what a configuration has under ``parent`` or ``parent_model``; what is none of
    these is recorded as it is, since a training may call anything so."""
    named = next((own for key in _CONFIGURED if (own := training.get(key)) is not None), None)
    if named is None:
        return None
    try:
        return stated_parents(named, factory)
    except ProvenanceError as error:
        items = named if isinstance(named, list) else [named]
        if any(isinstance(item, dict) and "source" in item for item in items):
            log.warning("the parent in the configuration is recorded as it is", problem=str(error))
        return named


def is_bundle(path: Path) -> bool:
    """Whether a path is taken for a bundle, and not for a model."""
    if os.path.isdir(path):
        names = ("manifest.json", "evidence/manifest.json")
        return any(os.path.isfile(path / name) for name in names)
    return path.suffix == ".zip"


def hub_snapshot(revision: str) -> Path | None:
    """Where the Hub's own cache has a revision's files; None where it does not.

    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    if (match := _HUB.fullmatch(revision)) is None:
        return None
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
    place = cache / f"models--{match[1]}--{match[2]}" / "snapshots" / match[3]
    return place if place.is_dir() else None


def _parent(given: object, factory: HashFactory) -> dict[str, Json]:
    source, more = given, dict[str, Json]()
    if isinstance(given, Mapping):
        unknown = sorted(map(str, given.keys() - {"source", "role", "epoch"}))
        if unknown or "source" not in given:
            found = f"the key {unknown[0][:60]!r}" if unknown else "no source"
            raise InputError(f"parent: found {found}, expected source, role and epoch")
        source, role, epoch = given["source"], given.get("role"), given.get("epoch")
        if role is not None and not (isinstance(role, str) and role in ROLES):
            raise InputError(f"parent.role: found {role!r:.60}, expected one of {', '.join(ROLES)}")
        if epoch is not None and (type(epoch) is not int or not 0 <= epoch <= MAX_SAFE_INTEGER):
            raise InputError(f"parent.epoch: found {epoch!r:.60}, expected a whole number from 0")
        more = {"role": role} if role is not None else {}
        more |= {"epoch": epoch} if epoch is not None else {}
    source = getattr(source, "tracker", source)  # of a run
    named = getattr(source, "run_id", source)
    with suppress(ValueError):
        return {"run": str(UUID(str(named))), "epoch": None, **more}
    if isinstance(named, str) and _HUB.fullmatch(named):
        weights = dict[str, Json]()
        if (place := hub_snapshot(named)) is not None:
            with suppress(ProvenanceError):  # no weights there, such as a tokenizer's alone
                weights = _weights(place, factory)
        return _model(named, weights, more)
    if isinstance(named, str | os.PathLike) and os.path.exists(named):
        path = Path(named)
        with errors_of(path, "read"):
            if is_bundle(path):
                return {**_bundle(path), **more}
            return _model(path.resolve().name, _weights(path, factory), more)
    raise InputError(f"parent: found {str(named)[:80]!r}, expected {_EXPECTED}")


def _model(name: str, weights: dict[str, Json], more: dict[str, Json]) -> dict[str, Json]:
    if "epoch" in more:
        raise InputError(f"parent.epoch: found {more['epoch']} of the model {name!r:.80}, which "
                         "has none; expected it of a run")  # fmt: skip
    printable = "".join(c if " " <= c <= "~" else "?" for c in name)[:200]
    return {"model": printable, **weights, **more}


def _weights(path: Path, factory: HashFactory) -> dict[str, Json]:
    from provenance.fingerprint.tensors import state_digest_file

    state = state_digest_file(path, factory)
    return {"algorithm": state.algorithm, "weights": str(state)}


def _bundle(path: Path) -> dict[str, Any]:
    from provenance.bundle.reader import read_bundle

    inner = path / "evidence"
    evidence = read_bundle(inner if (inner / "manifest.json").is_file() else path)
    root = {"root": evidence.entries[-1].root.hex()} if evidence.entries else {}
    return {"run": str(evidence.run), "epoch": None, **root}
