"""What commands print: tables and lines for people on stderr/stdout, JSON for machines.

What is for people passes :func:`provenance.log.shown` here, and nowhere before: a text may come
from a trainer, a bundle, a database or a node. Neither markup nor emoji codes are interpreted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from msgspec.structs import replace
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from provenance.app.base_directory import left_config, running_redis
from provenance.errors import InputError
from provenance.log import shown
from provenance.report.summary import seconds_in
from provenance.settings import Settings, load

if TYPE_CHECKING:
    from rich.progress import Progress


class _Console(Console):
    """Prints texts as they are: one line each, except for what :func:`shown` escapes."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich's; a text is a line by itself."""
        plain = [shown(item) if isinstance(item, str) else item for item in objects]
        super().print(*plain, **options)

    def on_broken_pipe(self) -> None:
        """The command goes on: what it found is in its exit code too."""
        reader_left(self.file)


def reader_left(stream: IO[str]) -> None:
    """Nobody reads a stream any more, as behind ``| head``: what follows goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# Piped output is not folded to a terminal's width.
_STYLE: Any = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
out = _Console(**_STYLE, width=None if sys.stdout.isatty() else 240)
err = _Console(**_STYLE, stderr=True)


def settings_of(
    arguments: argparse.Namespace, *, secrets: bool | Collection[str] = True
) -> Settings:
    """What a command goes by: ``--config``, else ``PROVENANCE_CONFIG``, else the base directory's
    ``run/config.json``; and the Redis that a running ``provenance up`` brought along."""
    config = arguments.config or left_config(arguments.base_dir)
    settings = load(config, arguments.base_dir, secrets=secrets)
    if settings.redis_url is None:
        settings = replace(settings, redis_url=running_redis(settings.base_dir))
    return settings


def answer(arguments: argparse.Namespace, document: Any, *lines: str) -> int:
    """The document with ``--json``, else the lines; the exit code 0."""
    if arguments.json:
        print_json(document)
    else:
        for line in lines:
            out.print(line)
    return 0


def progress() -> Progress:
    """Bars on stderr, for people alone. Lines on stdout pass above them where both are one
    terminal."""
    from rich import progress as bars

    return bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        console=err,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=False,
        disable=not err.is_terminal,
    )


def print_json(document: Any) -> None:
    """One JSON object on stdout, nothing else."""
    _write(json_line(document, indent=2).encode() + b"\n")


def json_line(document: Any, indent: int | None = None) -> str:
    """JSON in printable ASCII: all else is escaped, DEL too, which :mod:`json` leaves."""
    text = json.dumps(document, indent=indent, default=str)
    return text.replace("\x7f", "\\u007f")


def print_text(text: str) -> None:
    """A file format on stdout: byte for byte in UTF-8, but on a terminal :func:`shown`."""
    if sys.stdout.isatty():
        text = "".join(shown(line) + "\n" for line in text.splitlines())
    _write(text.encode())


def print_document(data: bytes) -> None:
    """Canonical JSON on stdout: byte for byte, but what :func:`shown` escapes is escaped as JSON
    has it, which is the same value."""
    text = data.decode()
    if text != shown(text):
        text = "".join(c if c == shown(c) else json_line(c)[1:-1] for c in text)
    _write(text.encode() + b"\n")


def _write(data: bytes) -> None:
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        reader_left(sys.stdout)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], least: int | None = None
) -> None:
    """A plain table; None reads as a dash. Where it is wider than the terminal, columns behind the
    first ``least`` are left out from the right; the rest is folded."""
    texts = [["-" if cell is None else shown(str(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *texts, strict=True)]
    most = len(columns)
    if out.is_terminal and least is not None:
        while most > least and sum(widths[:most]) + 2 * (most - 1) > out.width:
            most -= 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:most]:
        table.add_column(column, overflow="fold")
    for row in texts:
        table.add_row(*map(Text, row[:most]))
    out.print(table)
    if most < len(columns):
        out.print(f"a wider terminal and --json have more: {', '.join(columns[most:])}")


def when(moment: float | None) -> str | None:
    """Unix seconds as a reader's text, in UTC."""
    text = "%Y-%m-%d %H:%M:%SZ"
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime(text)


def moment(option: str, text: str, now: float) -> float:
    """Unix seconds of ``90min``, ``36h``, ``7d`` before now, or of a date and time (UTC)."""
    if (ago := seconds_in(text)) is not None:
        return now - ago
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        expected = "expected such as 90min, 36h, 7d or 2026-05-31"
        raise InputError(f"{option}: found {text!r}, {expected}") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
