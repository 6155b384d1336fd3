"""What a list of runs says of each: moved on by every batch of records, never read from all.

All of it is the trainer's word, for people. What a verifier says rests on the records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Final

from provenance.evidence.lineage import parent_of
from provenance.formats.record import MAX_SAFE_INTEGER, Json, Kind, Record
from provenance.ports.listing import LABEL_CHARS, RunSummary

SUMMARISED: Final = (Kind.CONFIG, Kind.NOTE, Kind.RESULTS, Kind.GAP)
"""Kinds of which every record counts; of metrics and steps the newest of a batch does."""
ENDING: Final = (Kind.CONFIG, Kind.SEAL, Kind.RUN_END)
"""Kinds that say how a run ended."""
_NUMBERS: Final = 3
_TAGS: Final = 100


def moved_on(summary: RunSummary, records: Iterable[Record], times: Sequence[str]) -> RunSummary:
    """The summary with new records of a run; name, group and parent stay once they are
    stated; what team it is of is not for the records alone to say.

    Args:
        times: ``ts`` of all that came, the summarised ones among them.
    """
    for record in records:
        body = record.body
        if record.kind is Kind.CONFIG:
            summary = replace(
                summary,
                name=summary.name or _text(body.get("name")),
                group=summary.group or _text(body.get("group")),
                parent=summary.parent or parent_of([record]),
            )
        if record.kind is Kind.GAP:
            number = body.get("dropped")
            stated = number if type(number) is int and number > 0 else 1
            dropped = min(summary.dropped + stated, MAX_SAFE_INTEGER)
            summary = replace(summary, dropped=dropped)
        elif record.kind is Kind.METRICS:
            summary = _with_metrics(summary, record)
        elif record.kind is Kind.STEPS and summary.epoch is None:
            step, numbers = newest_step([record])
            if step is not None and step >= (summary.step or 0):
                numbers = dict(summary.numbers) if summary.has_results else _few(numbers)
                summary = replace(summary, step=step, numbers=numbers)
        elif record.kind is Kind.RESULTS and (results := body.get("results")):
            summary = replace(summary, numbers=_few(results), has_results=True)
        if record.kind is not Kind.METRICS and (tags := tags_of(record)):
            known = {*summary.tags, *(tag[:LABEL_CHARS] for tag in tags)}
            summary = replace(summary, tags=tuple(sorted(known)[:_TAGS]))
    moments = [each for each in (summary.begun, summary.seen) if each is not None]
    for ts in (min(times), max(times)) if times else ():
        with suppress(ValueError):  # the 31st of February
            moments.append(seconds_of(ts))
    return replace(summary, begun=min(moments, default=None), seen=max(moments, default=None))


def _with_metrics(summary: RunSummary, record: Record) -> RunSummary:
    if record.epoch is None or record.epoch < (summary.epoch or 0):
        return summary
    numbers = summary.numbers if summary.has_results else _few(record.body.get("metrics"))
    return replace(summary, epoch=record.epoch, step=None, numbers=numbers)


def _few(value: Json) -> dict[str, Json]:
    named = islice(leaves(value), _NUMBERS) if isinstance(value, dict) else ()
    return {
        name[:LABEL_CHARS]: leaf
        if isinstance(leaf, int | float | None)
        else str(leaf)[:LABEL_CHARS]
        for name, leaf in named
    }


def _text(value: Json) -> str | None:
    return value[:LABEL_CHARS] if isinstance(value, str) and value else None


def tags_of(record: Record) -> list[str]:
    """The tags that a record states."""
    tags = record.body.get("tags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def step_series(record: object) -> Iterator[tuple[list[float], str, list[Json]]]:
    """Numbers, name and values of each metric in a ``steps`` record, as far as it is one."""
    series = record.body.get("series") if isinstance(record, Record) else None
    for part in series if isinstance(series, list) else ():
        of_part = part if isinstance(part, dict) else {}
        steps, metrics = of_part.get("step"), of_part.get("metrics")
        if not isinstance(steps, list) or not isinstance(metrics, dict):
            continue
        numbers = [float(step) for step in steps if type(step) is int]
        for name, values in metrics.items():
            if isinstance(values, list) and len(numbers) == len(steps):
                yield numbers, name, values


def newest_step(records: Iterable[object]) -> tuple[int | None, dict[str, Json]]:
    """The highest step that ``steps`` records end with, None without one, and its metrics."""
    ends = {
        name: (steps[-1], values[len(steps) - 1])
        for record in records
        for steps, name, values in step_series(record)
        if steps and len(values) >= len(steps)
    }
    newest = max((step for step, _ in ends.values()), default=None)
    metrics = {name: value for name, (step, value) in ends.items() if step == newest}
    return None if newest is None else int(newest), metrics


def seconds_of(ts: str) -> float:
    """Unix seconds of a record's ``ts``."""
    return datetime.fromisoformat(ts).timestamp()


def leaves(value: Json, name: str = "") -> Iterator[tuple[str, Json]]:
    """Names, joined by dots, and what is no object in a JSON value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    elif value not in ({}, None) or name:
        yield name, value
