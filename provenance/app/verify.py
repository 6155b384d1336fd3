"""Verification as commands, the tracker and the workers call it: settings in, report out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from provenance.app.runs import evidence_of
from provenance.bootstrap import reading
from provenance.bundle.attachments.proofs import with_proofs
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import FileSource
from provenance.errors import InputError, ProofError
from provenance.evidence.run_evidence import RunEvidence
from provenance.formats.note import VerifierKey
from provenance.ports.network import Network
from provenance.settings import Settings
from provenance.verify import verifier
from provenance.verify.headers import AllSources, GivenHeaders, HeaderSource
from provenance.verify.report import VerificationReport
from provenance.verify.trust import Trust, of_own_deployment, of_settings
from provenance.verify.verifier import NOBODY


def header_source(values: Iterable[str], quorum: int | None = None) -> HeaderSource | None:
    """The source that ``--headers`` names; None where there is nothing.

    Args:
        values: Paths of files of headers, and ``http(s)://`` URLs of explorers.
        quorum: How many of the explorers must agree; all where None.

    Raises:
        InputError: A file that holds no headers, a URL that is not taken, a quorum that
            cannot be reached.
    """
    named = list(values)
    urls = [value for value in named if "://" in value]
    files = [Path(value) for value in named if "://" not in value]
    sources: list[HeaderSource] = []
    if files:
        sources.append(GivenHeaders.read(*files))
    if urls:
        # Not before: checking offline loads no code for the network.
        from provenance.chains.esplora import Explorers

        sources.append(Explorers(urls, quorum))
    elif quorum is not None:
        raise InputError("--quorum: found no explorer in --headers, expected one at least")
    if len(sources) > 1:
        return AllSources(tuple(sources))
    return sources[0] if sources else None


class Options(TypedDict, total=False):
    """How to verify.

    Attributes:
        offline: Ask no node.
        headers: Files of Bitcoin block headers (:mod:`provenance.verify.headers`) and URLs of
            explorers, which are asked ``offline`` too; without any, and without a node, the
            report says that the header was not checked.
        quorum: How many of the explorers must agree; all where None.
        trust: What the reader pins beside the settings.
        networks: Networks to ask instead of the configured ones; left open.
        parent: What verifying the run found that this one is to continue.
        proofs: Files of ``provenance prove`` about the run.
    """

    offline: bool
    headers: Sequence[str]
    quorum: int | None
    trust: Trust
    networks: Mapping[str, Network] | None
    parent: VerificationReport
    proofs: Sequence[Path]


def verify_run(
    settings: Settings, run: str, team: str | None = None, **options: Unpack[Options]
) -> VerificationReport:
    """Check a run from the database, and on the configured networks unless ``offline``.

    Args:
        run: A run id, 8 or more of its first or last hex digits, or ``latest``.
        team: As :func:`provenance.app.runs.evidence_of` takes it.

    Raises:
        UnknownRunError, StoreUnavailable, ConfigError, MissingExtraError
        InputError: No headers in their file, or a URL or quorum that cannot be.
    """
    own = reading.ledger_key(settings)
    evidence = evidence_of(settings, run, team)
    return _verify(settings, evidence, own, own_trust(settings, own), options)


def verify_sealed(settings: Settings, run: str) -> VerificationReport:
    """Check a run offline of which something is to be made.

    Raises:
        InputError: It has no seal yet. ProofError: It does not hold. As :func:`verify_run`
    """
    report = verify_run(settings, run, offline=True)
    if report.findings:
        first = report.findings[0]
        raise ProofError(f"run {report.run}: {first.subject}: {first.problem}")
    if not report.seals:
        raise InputError(f"run {report.run}: has no seal yet")
    return report


def verify_path(
    settings: Settings, path: Path | FileSource, **options: Unpack[Options]
) -> VerificationReport:
    """Check a bundle, or the report folder around one; needs no database, and asks no node unless
    ``offline`` is False.

    A bundle of this deployment's own ledger rests on its key and networks, as a run from the
    database; any other's key is the one it brings, and ``trust`` says whether it is pinned.

    Args:
        path: A folder, a zip file, or files that were fetched.

    Raises:
        InputError: No bundle there, no headers in their file, or a URL or quorum that
            cannot be.
        FormatError, IntegrityError: It cannot be read as one; the message names the file.
    """
    if isinstance(path, Path):
        inner = path / "evidence"
        if not (path / "manifest.json").exists() and (inner / "manifest.json").exists():
            path = inner
    evidence, own = read_bundle(path), reading.ledger_key(settings)
    of_own = own is not None and evidence.vkey is not None and own.vkey == evidence.vkey.strip()
    pins = own_trust(settings, own) if of_own else of_settings(settings)
    return _verify(settings, evidence, None, pins, {"offline": True, **options})


def own_trust(settings: Settings, key: VerifierKey | None) -> Trust:
    """What this deployment's own evidence rests on, the ``trust`` section included."""
    return of_own_deployment(settings, key).also(of_settings(settings))


def _verify(
    settings: Settings,
    evidence: RunEvidence,
    key: VerifierKey | None,
    pins: Trust,
    options: Options,
) -> VerificationReport:
    evidence = with_proofs(evidence, options.get("proofs", ()))
    verify = partial(
        verifier.verify,
        evidence,
        verifier_key=key,
        headers=header_source(options.get("headers", ()), options.get("quorum")),
        trust=pins.also(options.get("trust", NOBODY)),
        parent=options.get("parent"),
        now=time.time(),
        lost_after_s=settings.lost_after_s,
    )
    networks = options.get("networks")
    if options.get("offline"):
        return verify(None)
    if networks is not None:
        return verify(networks)
    with reading.opened_networks(settings) as (opened, unavailable):
        problem = _other_machine(settings, evidence) if evidence.source.kind == "bundle" else None
        if problem is not None:
            opened.pop("local", None)
            unavailable["local"] = problem
        return verify(opened, unavailable=unavailable)


def _other_machine(settings: Settings, evidence: RunEvidence) -> str | None:
    """Why this machine's local anchor file cannot be that of the bundle's ledger."""
    local, key = settings.blockchain.local, reading.ledger_key(settings)
    if local is not None and not local.path.exists():
        return "the local anchor file is not on this machine"
    if key is not None and evidence.vkey is not None and key.vkey != evidence.vkey.strip():
        return "the local anchor file on this machine is of another ledger"
    return None
