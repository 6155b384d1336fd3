"""What commands print: tables and lines for people on stderr/stdout, JSON for machines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from provenance.settings import Settings, load


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """A reader that left is the command line's to handle: ``| head`` is no failure."""
        raise BrokenPipeError


# Piped output is not folded to a terminal's width.
out = _Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 240)
err = _Console(stderr=True, highlight=False, soft_wrap=True)


def settings_of(
    arguments: argparse.Namespace, *, secrets: bool | Collection[str] = True
) -> Settings:
    """The settings a command was given by ``--config`` and ``--base-dir``."""
    return load(arguments.config, arguments.base_dir, secrets=secrets)


def print_json(document: Any) -> None:
    """One JSON object on stdout, nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False, default=str) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table; None reads as a dash. Markup in cells is not interpreted."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else _plain(cell) for cell in row))
    out.print(table)


def _plain(cell: object) -> str:
    return str(cell).replace("[", r"\[")
