"""The folder of a report: the dossier for people and machines, bills of materials, a model card.

The statement is written last and deleted first: a folder that has one has all that it names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import files
from provenance.compliance.cyclonedx import cyclonedx
from provenance.compliance.dossier import Dossier, dossier_of
from provenance.compliance.hub_card import hub_card
from provenance.compliance.materials import materials_of
from provenance.compliance.pdf import pdf
from provenance.compliance.spdx import spdx3
from provenance.compliance.statement import FILE, ComplianceStatement, read_statement, sign
from provenance.errors import FormatError, InputError
from provenance.report.html import OUTCOMES, time_of, version
from provenance.report.summary import summary_of
from provenance.report.template import fill
from provenance.verify.report import VerificationReport

HERE: Final = Path(__file__).resolve().parent


def write_compliance(
    report: VerificationReport,
    framework: str,
    folder: Path,
    key: Ed25519PrivateKey | None = None,
    placed_on: date | None = None,
) -> Dossier:
    """Write what a verified run says to a framework into a folder: an empty one, or one that
    holds an earlier report.

    Args:
        framework: One of :data:`provenance.compliance.framework.FRAMEWORKS`.
        key: Signs the files; None leaves them unsigned, and they say so.
        placed_on: When the system was placed on the market, or will be.

    Raises:
        InputError: The run has no seal, or the folder holds something else or cannot be written.
        MissingExtraError: A package of the extra ``compliance`` is not installed.
    """
    earlier = _earlier(folder)
    dossier = dossier_of(report, framework, placed_on)
    signer = None if key is None else key.public_key().public_bytes_raw().hex()
    made = {name: write(dossier, signer) for name, write in OUTPUTS.items()}
    statement = ComplianceStatement(
        run=report.run,
        root=dossier.seal.root,
        seal=dossier.seal.label,
        framework=framework,
        version=dossier.framework.version,
        table=bytes.fromhex(dossier.table_sha256),
        outcome=report.outcome,
        files={name: hashlib.sha256(data).hexdigest() for name, data in made.items()},
    )
    with files.errors_of(folder, "written"):
        files.make_folders(folder)
        for name in (FILE, *earlier):
            (folder / name).unlink(missing_ok=True)
        for name, data in (*made.items(), (FILE, sign(statement, key))):
            files.replace(folder / name, data, files.PUBLIC)
    return dossier


def _earlier(folder: Path) -> list[str]:
    """The files of the report that is there, which go; ``InputError`` where others are."""
    problem = f"{folder}: holds something that is no report; nothing was overwritten"
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(problem)
    names = {path.name for path in folder.iterdir()}
    if not names:
        return []
    try:
        own = set(read_statement(folder)[1].files) | {FILE}
    except (InputError, FormatError) as error:
        raise InputError(f"{problem} ({error})") from error
    if other := sorted(names - own):
        raise InputError(f"{problem} ({other[0]} is not the report's)")
    return sorted(names & own)


def _page(dossier: Dossier, signer: str | None) -> bytes:
    report = dossier.report
    text = fill(
        "page.html.j2",
        HERE,
        dossier=dossier,
        framework=dossier.framework,
        report=report,
        outcomes=OUTCOMES,
        run_name=summary_of(report.evidence).name,
        signer=signer,
        statement_file=FILE,
        version=version(),
        time=time_of,
    )
    return text.encode("utf-8", "backslashreplace")


def _document(dossier: Dossier, signer: str | None) -> bytes:
    return json.dumps({**dossier.as_dict(), "signer": signer}, indent=2).encode() + b"\n"


OUTPUTS: Final[Mapping[str, Callable[[Dossier, str | None], bytes]]] = {
    "report.html": _page,
    "report.json": _document,
    "report.pdf": pdf,
    "bom.cdx.json": lambda dossier, _: cyclonedx(materials_of(dossier.report)),
    "bom.spdx3.json": lambda dossier, _: spdx3(materials_of(dossier.report)),
    "model-card.md": lambda dossier, _: hub_card(dossier.report, materials_of(dossier.report)),
}
"""What makes each file."""
