"""Bundles as auditors and operators meet them: made, added to IPFS, found again.

Life of a bundle on IPFS: :func:`make_bundle` writes it, adds and pins the same files as one
folder, and notes the CID in ``<base_dir>/bundles.jsonl``, where ``provenance status RUN``
finds it. Whoever has the CID fetches the folder from anywhere (:func:`bundle_at`) and
verifies it as any other bundle.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from provenance import files
from provenance.app.log.runs import with_roll
from provenance.app.runs import evidence_of
from provenance.bundle.attachments.proofs import with_proofs
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MANIFEST, FileSource, MemorySource
from provenance.bundle.writer import bundle_files, write_files
from provenance.errors import (
    ConfigError,
    FormatError,
    InputError,
    IntegrityError,
    NetworkError,
    UnavailableError,
)
from provenance.evidence.disclosure import withheld, withhold
from provenance.formats import json_text
from provenance.proofs.ipfs.cid import decode_cid
from provenance.proofs.ipfs.unixfs import check_cid
from provenance.settings import Settings

if TYPE_CHECKING:
    from provenance.chains.ipfs import IPFSInterface

JOURNAL: Final = "bundles.jsonl"
_IPFS: Final = re.compile(r"(?:ipfs:(?://)?|/ipfs/)(?P<cid>[^/]*)/?(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WrittenBundle:
    """A bundle that was made; ``asdict`` gives its JSON.

    Attributes:
        bytes: Of all files together.
        manifest_sha256: It names the content, whether as folder, zip or CID.
        withheld: How many of the run's ``records`` it keeps back.
        cid: The folder on IPFS, where it was added.
    """

    path: Path
    run_id: str
    files: int
    bytes: int
    manifest_sha256: str
    records: int
    withheld: int
    cid: str | None = None


def make_bundle(
    settings: Settings,
    run: str,
    target: Path,
    *,
    disclose: Sequence[str] = (),
    ots: bool = False,
    runs: bool = False,
    ipfs: bool = False,
    proofs: Sequence[Path] = (),
) -> WrittenBundle:
    """Write a run's evidence.

    Args:
        run: A run id, 8 or more of its first or last hex digits, or ``latest``.
        target: A folder, or a file ending in ``.zip``; below ``base_dir`` as private as the
            database.
        disclose: Kinds and places of the records whose content goes with it; all where empty.
        ots: As for :func:`provenance.bundle.attachments.files`.
        runs: With the roll of all runs of the ledger, their seeds and results.
        ipfs: Add and pin it too.
        proofs: Files of ``provenance prove`` that go with it.

    Raises:
        UnknownRunError, StoreUnavailable
        InputError: The target has something else, such as another run's bundle, or a word of
            ``disclose`` chooses nothing; ``runs`` beside it, or of more runs than a bundle takes.
        ConfigError: No IPFS daemon is configured.
        NetworkUnavailable, LyingNodeError: The bundle was written, but IPFS has not got it.
    """
    daemon = _daemon(settings) if ipfs else None
    if runs and disclose:
        raise InputError("--runs: tells configurations and results, found --disclose beside it")
    evidence = withhold(with_proofs(evidence_of(settings, run), proofs), disclose)
    if runs:
        evidence = with_roll(settings, evidence)
    contents = bundle_files(evidence, ots)
    _check_target(target, evidence.run)
    path = write_files(contents, target, files.mode_below(target, settings.base_dir))
    cid = None
    if daemon is not None:
        try:
            cid = str(daemon.add_folder(contents))
        except (UnavailableError, NetworkError) as error:
            error.args = (f"{error} (the bundle itself is at {path})",)
            raise
    made = WrittenBundle(
        path=path,
        run_id=str(evidence.run),
        files=len(contents),
        bytes=sum(map(len, contents.values())),
        manifest_sha256=hashlib.sha256(contents[MANIFEST]).hexdigest(),
        records=len(evidence.records),
        withheld=len(withheld(evidence)),
        cid=cid,
    )
    if cid is not None:
        _note(settings.base_dir / JOURNAL, made)
    return made


def _check_target(target: Path, run: UUID) -> None:
    """A bundle of this run is replaced, another run's is not; of all else the writer judges."""
    other = run
    with suppress(InputError, FormatError, IntegrityError):
        other = read_bundle(target).run if target.exists() else run
    if other != run:
        raise InputError(f"{target}: has the bundle of run {other}; nothing was overwritten")


def bundle_at(settings: Settings, text: str) -> Path | FileSource | None:
    """What a user's words name: a folder, a file, or a CID whose folder is fetched.

    Args:
        text: A path, ``ipfs:CID``, ``ipfs://CID`` or ``/ipfs/CID``.

    Returns:
        None where it is neither there nor a CID, and may be a run's id.

    Raises:
        InputError: No CID, or neither a file that is there nor the name of a run.
        ConfigError: No IPFS daemon is configured.
        NetworkUnavailable, LyingNodeError, FormatError, IntegrityError: It cannot be fetched,
            or is not what the CID says.
    """
    match = _IPFS.fullmatch(text)
    if match is not None:
        return fetch(settings, match["cid"], match["rest"])
    path = Path(text)
    if path.is_dir() or path.is_file():
        return path
    if text != "latest" and not re.fullmatch("[0-9A-Fa-f-]{8,}", text):
        raise InputError(
            f"{text}: there is no such file, nor a run of that name; expected a run id, 8 or "
            "more of its first or last hex digits, latest, a bundle or ipfs:CID"
        )
    return None


def fetch(settings: Settings, cid: str, rest: str = "") -> FileSource:
    """The files of a bundle by CID alone, every block held against its CID; errors as
    :func:`bundle_at`."""
    try:
        root = check_cid(decode_cid(cid))
    except FormatError as error:
        raise InputError(f"ipfs:{cid[:80]}: not the CID of a folder: {error}") from error
    if rest:
        raise InputError(f"ipfs:{cid}: found a path behind the CID, expected none")
    return MemorySource(_daemon(settings).read_folder(root), f"ipfs:{root}")


def noted(settings: Settings, run: UUID) -> list[dict[str, Any]]:
    """The bundles of a run that were added to IPFS from here, oldest first."""
    try:
        lines = files.read_lines(settings.base_dir / JOURNAL)
    except OSError:
        return []
    bundles = []
    for line in lines:
        with suppress(ValueError):  # A line that a crash cut off.
            item = json_text.loads(line)
            if isinstance(item, dict) and item.get("run_id") == str(run) and item.get("cid"):
                bundles.append(item)
    return bundles


def _daemon(settings: Settings) -> IPFSInterface:
    section = settings.blockchain.ipfs
    if section is None:
        raise ConfigError("blockchain.ipfs", "missing, expected the URL of an IPFS daemon")
    from provenance.chains.ipfs import IPFSInterface

    return IPFSInterface(section)


def _note(journal: Path, made: WrittenBundle) -> None:
    item = {"v": 1, "at": time.time(), **asdict(made)}
    line = json.dumps(item, sort_keys=True, default=str).encode()
    try:
        journal.parent.mkdir(parents=True, exist_ok=True)
        files.append_lines(journal, line)
    except OSError as error:
        raise InputError(
            f"{journal}: cannot be written: {error.strerror} (the bundle is ipfs:{made.cid})"
        ) from error
