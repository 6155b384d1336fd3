"""The metrics of a run, epoch by epoch, as its records state them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from provenance.formats.record import Json, Kind, Record
from provenance.verify.report import EpochMetrics

NON_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def metrics_of(records: Mapping[str, Record]) -> tuple[EpochMetrics, ...]:
    """Metrics records by epoch and rank; late ones are left out.

    Args:
        records: By path.
    """
    rows = []
    for path, record in records.items():
        if record.kind is not Kind.METRICS or record.epoch is None or path.startswith("late/"):
            continue
        stated = record.body.get("metrics")
        values = dict(_flat("", stated)) if isinstance(stated, dict) else {}
        rows.append(EpochMetrics(path, record.epoch, record.rank, values))
    return tuple(sorted(rows, key=lambda row: (row.epoch, row.rank, row.path)))


def number(value: Json) -> float | None:
    """A recorded metric as a number; NaN and the infinities are written as strings."""
    if isinstance(value, str):
        return NON_FINITE.get(value)
    if isinstance(value, int | float):
        return float(value)
    return None


def _flat(prefix: str, value: dict[str, Json]) -> list[tuple[str, Json]]:
    items: list[tuple[str, Json]] = []
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else key
        items += _flat(name, inner) if isinstance(inner, dict) else [(name, inner)]
    return items
