"""``provenance log runs``: every run ever begun, its end or silence."""

from __future__ import annotations

import argparse
from typing import Any, Final

from provenance.app.log import runs as telling
from provenance.bootstrap import reading
from provenance.cli.output import err, out, print_json, print_table, progress, settings_of, when
from provenance.errors import FormatError, InputError
from provenance.formats.fields import as_json
from provenance.formats.note import VerifierKey
from provenance.report.summary import shown
from provenance.roll.roll import RolledRun
from provenance.roll.statistics import runs_before

_PIPED: Final = 50
_AROUND: Final = 8
_COLUMNS: Final = (
    "run",
    "state",
    "begun at entry",
    "entries",
    "anchored before",
    "name",
    "results",
)


def runs(arguments: argparse.Namespace) -> int:
    """List a page of the runs of a ledger, or say how many began before one; 1 where an entry is
    unaccounted for."""
    settings = settings_of(arguments, secrets=False)
    own = reading.ledger_key(settings)
    key = _given_key(arguments.ledger_key) or own
    if arguments.source is None:
        with progress() as bars:
            task = bars.add_task("reading runs")
            told = telling.from_database(
                settings,
                described=arguments.before is not None,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
    else:
        told = telling.from_source(arguments.source, key)
    roll = told.roll
    before = None if arguments.before is None else runs_before(roll, told.run(arguments.before))
    limit = arguments.limit or (max(5, out.height - _AROUND) if out.is_terminal else _PIPED)
    first = (arguments.page - 1) * limit
    page = roll.runs[first : first + limit]
    if arguments.json:
        document = {
            "source": told.source,
            "size": roll.size,
            "key": told.key.vkey if told.key else None,
            "key_pinned": told.key is not None and told.key == key,
            "runs_total": len(roll.runs),
            "unaccounted": list(roll.unaccounted),
            "runs": [_document(told, item) for item in page],
            "outcomes_unanchored": told.unanchored,
            "page": arguments.page,
            "limit": limit,
            "before": None if before is None else before.as_json(),
            "word": told.word,
        }
        print_json(document)
        return 1 if roll.unaccounted else 0
    if before is not None:
        out.print(*before.lines, sep="\n")
    else:
        print_table(_COLUMNS, [_row(told, item) for item in page], least=3)
        pages = -(-len(roll.runs) // limit)
        out.print(f"page {arguments.page} of {pages}, {len(roll.runs)} runs in {roll.size} entries")
    if told.unanchored:
        out.print(f"outcomes under no head that a chain has: {told.unanchored}")
    if told.word is not None:
        out.print(told.word)
    for index in roll.unaccounted[:limit]:
        out.print(f"entry {index}: unaccounted for: nothing says which run it is of")
    if told.key is None or told.key != key:
        err.print(
            f"{told.source}: whose ledger it is, nobody pinned: say it with --ledger-key VKEY"
        )
    return 1 if roll.unaccounted else 0


def _document(told: telling.ToldRoll, item: RolledRun) -> dict[str, Any]:
    found: dict[str, Any] = as_json(item)
    return found | {"anchored": _anchored(told, item)}


def _anchored(told: telling.ToldRoll, item: RolledRun) -> dict[str, Any] | None:
    """The network and the time of the block that the run had begun before."""
    place = (told.anchored or {}).get(item.entries[0]) if item.entries else None
    return None if place is None else {"network": place[0], "before": when(place[1])}


def _row(told: telling.ToldRoll, item: RolledRun) -> tuple[Any, ...]:
    place = _anchored(told, item)
    numbers = " ".join(f"{name}={shown(value)}" for name, value in item.results.items())
    begun = item.entries[0] if item.entries else None
    anchored = f"{place['before']} ({place['network']})" if place else None
    return (item.run, item.state, begun, len(item.entries), anchored, item.name, numbers or None)


def _given_key(text: str | None) -> VerifierKey | None:
    try:
        return None if text is None else VerifierKey.from_vkey(text)
    except FormatError as error:
        raise InputError(f"--ledger-key: {error}") from error
