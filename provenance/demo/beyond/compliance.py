"""A signed report of the run for the EU AI Act; a changed page of it is refused."""

from __future__ import annotations

from datetime import date

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance.app.verify import verify_run
from provenance.compliance.statement import check
from provenance.compliance.write import write_compliance
from provenance.demo.beyond.stage import Stage
from provenance.errors import IntegrityError

NEEDS = ()


def walk(stage: Stage) -> str:
    """Write, check, change one word, check again."""
    key, folder = Ed25519PrivateKey.generate(), stage.scratch / "compliance"
    public = key.public_key().public_bytes_raw()
    report = verify_run(stage.settings, stage.run)
    dossier = write_compliance(report, "eu-ai-act", folder, key, date(2027, 1, 31))
    checked = check(folder, public, report)
    if checked.exit_code:
        raise IntegrityError((*checked.problems, *checked.not_checked)[0])
    page = folder / "report.html"
    whole = page.read_bytes()
    page.write_bytes(whole.replace(b"recorded only", b"verified", 1))
    refused = check(folder, public, report).problems
    page.write_bytes(whole)
    if not refused:
        raise IntegrityError(f"{page}: a changed page passes, expected that it is refused")
    counts, until = dossier.counts, dossier.retention[0].until
    return (
        f"{len(dossier.rows)} requirements of the EU AI Act: evidence verified for "
        f"{counts['verified']}, no record for {counts['nothing']}; "
        f"{len(checked.statement.files)} files signed by {public.hex()[:16]}, to keep until {until}"
    )
