"""A dossier as PDF, for printing and signing by hand: the page's content, in its order.

The letters are those of the core fonts, which every reader has and no package brings: Latin-1.
Others are written as ``\\uNNNN``, visibly; the HTML has them as recorded.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from provenance.compliance.dossier import Dossier, Row, Support
from provenance.errors import MissingExtraError
from provenance.log import shown
from provenance.report.html import time_of, version

try:
    from fpdf import FPDF
    from fpdf.enums import WrapMode, XPos, YPos
except ImportError as error:
    raise MissingExtraError("fpdf", "compliance") from error

_FONT: Final = "helvetica"
_INK, _SOFT = (27, 31, 36), (89, 99, 110)
_WORDS: Final = {
    Support.VERIFIED: "evidence verified",
    Support.RECORDED: "evidence recorded only",
    Support.NOTHING: "no evidence",
}


class _Pages(FPDF):
    """A4 pages, each with the run and its number at the foot."""

    def __init__(self, foot: str) -> None:
        super().__init__()
        self.foot = foot
        self.set_margins(18, 18)
        self.set_auto_page_break(True, 20)
        self.alias_nb_pages()

    def footer(self) -> None:
        """Called by the library at each page's end."""
        self.set_y(-14)
        self.set_font(_FONT, size=7.5)
        self.set_text_color(*_SOFT)
        self.cell(0, 5, f"{self.foot}    page {self.page_no()} of {{nb}}")

    def line_of(
        self, text: str, size: float = 9.5, style: str = "", soft: bool = False, indent: float = 0
    ) -> None:
        """A paragraph."""
        self.set_font(_FONT, style, size)
        self.set_text_color(*(_SOFT if soft else _INK))
        self.set_x(self.l_margin + indent)
        long_words = max(map(len, text.split()), default=0) > 60  # such as digests
        self.multi_cell(
            0, size * 0.48, _latin(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT,
            wrapmode=WrapMode.CHAR if long_words else WrapMode.WORD,
        )  # fmt: skip

    def heading(self, text: str, level: int, size: float) -> None:
        """A line that the reader's outline has too; never the last one of its page."""
        if self.will_page_break(28):
            self.add_page()
        self.ln(2)
        self.start_section(_latin(text), level)
        self.line_of(text, size, "B")
        self.ln(0.6)


def pdf(dossier: Dossier, signer: str | None) -> bytes:
    """The document. Its creation date is the verification's."""
    report, framework = dossier.report, dossier.framework
    pages = _Pages(f"run {report.run}, root {dossier.seal.root.hex()[:16]}")
    title = f"{framework.title}: evidence of run {report.run}"
    pages.set_title(_latin(title))
    pages.set_lang("en")
    pages.set_creator(f"ml-provenance {version()}")
    pages.set_creation_date(datetime.fromtimestamp(report.checked_at, UTC))
    pages.add_page()
    pages.heading(framework.title, 0, 16)
    pages.line_of(f"Run {report.run}: {report.outcome}", 11, "B")
    if report.outcome == "failed":
        pages.line_of("The run does not verify. Nothing below is to be relied on before its "
                      "findings are explained.", 10.5, "B")  # fmt: skip
    else:
        pages.line_of(
            "What the records of one training say to each requirement, how far that is verified, "
            "and what a person must still write. It does not judge whether a requirement is met."
        )
    counts = ", ".join(f"{dossier.counts[s.value]} with {word}" for s, word in _WORDS.items())
    facts = [
        f"Run root at {dossier.seal.label}: {dossier.seal.root.hex()}",
        *(f"Rests on: {line}" for line in report.verdict.rests_on),
        *(f"Missing: {line}" for line in report.verdict.missing),
        f"Edition: {framework.edition}",
        f"Scope: {framework.scope}",
        f"Table: version {framework.version}, SHA-256 {dossier.table_sha256}",
        f"Verified: {time_of(report.checked_at)}",
        f"Requirements: {counts}",
        f"Signature: {f'by key {signer}' if signer else 'none: nobody signed these files'}",
    ]
    pages.ln(2)
    for line in facts:
        pages.line_of(line, 8.5)
    if report.findings:
        pages.heading("Findings: what does not hold", 1, 12)
        for finding in report.findings:
            pages.line_of(f"({finding.check}) {finding.subject}: {finding.problem}")
    if dossier.retention:
        pages.heading("How long to keep", 1, 12)
        for each in dossier.retention:
            until = each.until or "not known"
            pages.line_of(f"{each.article}, {each.what}: until {until}, the day included.")
            pages.line_of(each.basis, 8.5, soft=True, indent=5)
    for group, source, rows in dossier.groups:
        pages.heading(group, 0, 13)
        pages.line_of(f"Text: {source}", 8.5, soft=True)
        for row in rows:
            _row(pages, row)
    pages.heading("What was not checked", 0, 13)
    for line in report.not_checked:
        pages.line_of(f"- {line}", 9)
    return bytes(pages.output())


def _row(pages: _Pages, row: Row) -> None:
    need = row.requirement
    pages.heading(f"{need.id}  {need.title}: {_WORDS[row.support]}", 1, 10.5)
    pages.line_of(need.text)
    for each in row.evidence:
        pages.line_of(f"{each.topic.title}: {each.support.value}", 9.5, "B", indent=3)
        for item in each.items:
            pages.line_of(f"{item.file}: {item.support.value}", 9, indent=6)
            pages.line_of(f"SHA-256 or root {item.digest}", 7.5, soft=True, indent=6)
            pages.line_of(item.says, 9, indent=6)
        if each.more:
            pages.line_of(f"{each.more} earlier ones are in the bundle.", 8.5, soft=True, indent=6)
        proves = each.topic.proves if each.support is Support.VERIFIED else "Nothing by itself."
        pages.line_of(f"It proves: {proves}", 9, indent=6)
        pages.line_of(f"It does not prove: {each.topic.limits}", 8.5, soft=True, indent=6)
    if row.absent:
        pages.line_of(f"Not recorded: {', '.join(row.absent)}.", 8.5, soft=True, indent=3)
    for line in need.write:
        if pages.will_page_break(16):
            pages.add_page()
        pages.line_of(f"To be written by a person: {line}", 9, "B", indent=3)
        pages.ln(7)
        pages.line(pages.l_margin + 3, pages.get_y(), pages.w - pages.r_margin, pages.get_y())
        pages.ln(1.5)


def _latin(text: str) -> str:
    return shown(text).encode("latin-1", "backslashreplace").decode("latin-1")
