"""The report of a run: ``report.html``, ``report.json`` and the evidence, in one folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

from provenance import files
from provenance.app.verify import verify_run
from provenance.bundle.writer import write_bundle
from provenance.errors import InputError
from provenance.report import html
from provenance.settings import Settings


def write_report(settings: Settings, run: str, folder: Path | None = None) -> Path:
    """Verify a run and write ``report.html``, ``report.json`` and the ``evidence`` bundle.

    The verifying worker and a person may write the same report at once: one after another.
    Below ``base_dir`` it is as private as the database; elsewhere the umask says who reads it.

    Args:
        folder: ``<base_dir>/reports/<run>`` where None.

    Returns:
        The path of ``report.html``.

    Raises:
        UnknownRunError, StoreUnavailable, InputError (the folder cannot be written)
    """
    report = verify_run(settings, run)
    target = folder if folder is not None else settings.base_dir / "reports" / str(report.run)
    mode = files.mode_below(target, settings.base_dir)
    with contextlib.ExitStack() as stack:
        try:
            files.make_folders(target, mode)
            stack.enter_context(files.locked(target))
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror}") from error
        page = html.write_report(report, target, mode)
        write_bundle(report.evidence, target / "evidence", mode)
    return page
