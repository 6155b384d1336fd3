"""The section of a model card that says where a model is from, as the Hugging Face Hub shows it."""

from __future__ import annotations

from collections.abc import Mapping

from provenance.verify.report import VerificationReport


def run_facts(report: VerificationReport) -> dict[str, str | None]:
    """A run's id, newest root, ledger, and the newest head that a network was seen to have."""
    return {
        "run": str(report.run),
        "root": report.seals[-1].root.hex() if report.seals else None,
        "ledger": report.verdict.key,
        "head": _head(report),
    }


def section(facts: Mapping[str, str], check: str) -> str:
    """Markdown of facts that are fit for a line, and the command that checks them."""
    rows = "".join(f"| {name} | `{value}` |\n" for name, value in facts.items())
    return (
        f"## Provenance\n\n| | |\n| --- | --- |\n{rows}\n"
        f"A claim like any other text here. To check it: `{check}`.\n"
    )


def _head(report: VerificationReport) -> str | None:
    """Its size and root."""
    checks = [check for seals in report.networks.values() for check in seals.values()]
    sizes = {
        check.size: check.root.hex()
        for check in checks
        if check.status == "verified" and check.size is not None and check.root is not None
    }
    return f"{max(sizes)} {sizes[max(sizes)]}" if sizes else None
