"""``provenance compliance``: what a run's records say to a framework, and whether it is signed."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.app.bundle import bundle_at
from provenance.app.verify import verify_path, verify_run
from provenance.cli.output import answer, settings_of
from provenance.compliance.statement import FILE, check
from provenance.errors import InputError
from provenance.formats.fields import as_json
from provenance.settings import READERS
from provenance.settings.key_files import IDENTITY, read_seed
from provenance.verify.report import VerificationReport


def compliance(arguments: argparse.Namespace) -> int:
    """Write a report, or with ``--check`` hold one against its statement."""
    if arguments.check is not None:
        return _check(arguments)
    for option, value in (("RUN", arguments.subject), ("-o", arguments.output),
                          ("--framework", arguments.framework)):  # fmt: skip
        if value is None:
            raise InputError(f"compliance: found no {option}, expected it (or --check FOLDER)")
    if arguments.signer is not None:
        raise InputError("--signer: found it without --check, expected --key to sign")
    if arguments.placed_on is not None and arguments.framework != "eu-ai-act":
        found = f"--framework {arguments.framework}"
        raise InputError(f"--placed-on: found {found}, expected eu-ai-act, which counts from it")
    placed_on = None if arguments.placed_on is None else _day(arguments.placed_on)
    key = None
    if arguments.key is not None:
        seed = read_seed(Path(arguments.key), IDENTITY)
        key = Ed25519PrivateKey.from_private_bytes(seed)
    from provenance.compliance.write import write_compliance

    folder = Path(arguments.output)
    report = _verified(arguments)
    dossier = write_compliance(report, arguments.framework, folder, key, placed_on)
    counts = ", ".join(f"{word} for {number}" for word, number in dossier.counts.items())
    signer = None if key is None else key.public_key().public_bytes_raw().hex()
    document = {"folder": str(folder), "signer": signer, **dossier.as_dict()}
    document["exit_code"] = dossier.exit_code
    verdict = report.verdict
    by = f"ledger key {verdict.key}" if verdict.key else "no ledger's key"
    rest = "" if verdict.key_pinned_by else f"; rests on {by}, which nobody pinned"
    answer(
        arguments,
        document,
        f"{folder / 'report.html'}: run {report.run}: {report.outcome}",
        f"  {len(dossier.rows)} requirements of {dossier.framework.title}: evidence {counts}{rest}",
        *(f"  {each.article}: keep until {each.until or each.basis}" for each in dossier.retention),
        f"  signed by {signer}" if signer else "  not signed (--key)",
        *(f"FOUND {finding.subject}: {finding.problem}" for finding in report.findings),
    )
    return dossier.exit_code


def _check(arguments: argparse.Namespace) -> int:
    for option in ("output", "framework", "key", "placed_on"):
        if getattr(arguments, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--{name}: found it with --check, expected one of the two")
    folder, signer = Path(arguments.check), None
    if arguments.signer is not None:
        try:
            signer = bytes.fromhex(arguments.signer)
        except ValueError:
            signer = b""
        if len(signer) != 32:
            found = f"--signer: found {arguments.signer[:80]!r}"
            raise InputError(f"{found}, expected an Ed25519 key, 64 hex digits")
    checked = check(folder, signer, None if arguments.subject is None else _verified(arguments))
    statement = checked.statement
    document = {"folder": str(folder), **as_json(checked), "exit_code": checked.exit_code}
    word = "does not hold" if checked.problems else "holds"
    answer(
        arguments,
        document,
        f"{folder / FILE}: {word}: {len(statement.files)} files about run {statement.run}, "
        f"root {statement.root.hex()[:16]} at {statement.seal}, {statement.framework}",
        *(f"  signed by {key}" for key in checked.signers),
        *(f"FOUND {problem}" for problem in checked.problems),
        *(f"not checked: {line}" for line in checked.not_checked),
    )
    return checked.exit_code


def _verified(arguments: argparse.Namespace) -> VerificationReport:
    settings = settings_of(arguments, secrets=READERS)
    path = bundle_at(settings, arguments.subject)
    if path is not None:
        return verify_path(settings, path, offline=False)
    return verify_run(settings, arguments.subject)


def _day(text: str) -> date:
    """Of ``--placed-on``: so early that ten years behind it are a date."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or not 1900 <= day.year < 2200 or text != day.isoformat():
        raise InputError(f"--placed-on: found {text[:60]!r}, expected a day such as 2027-01-31")
    return day
