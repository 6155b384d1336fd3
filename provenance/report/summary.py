"""What a reader wants to know of a run first: its name, how it ended, on what, with what.

All of it is the trainer's word, as its records state it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from provenance.evidence.run_evidence import RunEvidence
from provenance.evidence.run_summary import leaves, newest_step, seconds_of, tags_of
from provenance.formats.record import Json, Kind, Record
from provenance.log import shown as escaped

MAX_LINES: Final = 400
"""Of a table; the rest is in the records."""
MAX_CHARS: Final = 300
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}

Lines = list[tuple[str, str]]
"""Names and values."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A run for people.

    Attributes:
        name, team, group, notes, parent: As given; None where nobody did.
        seconds: From the first record to the last, by the producers' clocks.
        results, config, data, model, code, machine: Tables.
    """

    name: str | None
    team: str | None
    group: str | None
    notes: str | None
    parent: str | None
    tags: list[str]
    begun: str | None
    seconds: float | None
    results: Lines
    config: Lines
    data: Lines
    model: Lines
    code: Lines
    machine: Lines

    @property
    def duration(self) -> str:
        """Such as ``2 h 3 min``."""
        return "-" if self.seconds is None else spoken(self.seconds)


def summary_of(evidence: RunEvidence) -> Summary:
    """What the records state that can be read, late ones left out."""
    records = [
        item.decoded
        for item in evidence.records
        if item.place != "late" and isinstance(item.decoded, Record)
    ]
    first = {record.kind: record for record in reversed(records)}
    config = _body(first, Kind.CONFIG)
    times = sorted(r.decoded.ts for r in evidence.records if isinstance(r.decoded, Record))
    last = next((r for r in reversed(records) if r.kind is Kind.RESULTS), None)
    results = {} if last is None else last.body.get("results")
    numbers = [line for line in lines(results or _newest_metrics(records)) if line[1] != "{}"]
    return Summary(
        name=_text(config.get("name")),
        team=_text(config.get("team")),
        group=_text(config.get("group")),
        notes=_text(config.get("notes")),
        parent=_parent(config.get("parent")),
        tags=sorted(
            {_cut(tag) for r in records if r.kind is not Kind.METRICS for tag in tags_of(r)}
        ),
        begun=times[0][:19].replace("T", " ") + " UTC" if times else None,
        seconds=seconds_of(times[-1]) - seconds_of(times[0]) if times else None,
        results=numbers + ([] if last is None else hidden_numbers(last.body)),
        config=lines(config.get("training")),
        data=[line for kind in (Kind.DATA_TRAIN, Kind.DATA_TEST) for line in _data(first, kind)],
        model=list(_model(first)),
        code=_code(config.get("code")),
        machine=lines(config.get("environment")),
    )


def lines(value: Json) -> Lines:
    """A JSON value as names, joined by dots, and texts; at most `MAX_LINES`."""
    return [(_cut(name), shown(leaf)) for name, leaf in islice(leaves(value), MAX_LINES)]


def hidden_numbers(body: Mapping[str, Json]) -> Lines:
    """The numbers that a record does not have but a commitment to (docs/FORMAT.md, 13)."""
    stated, made = body.get("commitments"), Lines()
    for name, each in stated.items() if isinstance(stated, dict) else ():
        point = each.get("point") if isinstance(each, dict) else None
        made.append((_cut(name), f"hidden, {'committed to' if point else 'without a commitment'}"))
    return made[:MAX_LINES]


def size_of(nbytes: float) -> str:
    """Such as ``12.3 MB``."""
    power = 0
    while nbytes >= 1000 and power < len(_UNITS) - 1:
        nbytes, power = nbytes / 1000, power + 1
    return f"{nbytes:.3g} {_UNITS[power]}"


def spoken(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join([f"{number} {unit}" for number, unit in parts if number][:2])


def seconds_in(duration: str) -> int | None:
    """Of ``90min``, ``36 h`` or ``7d``; None for any other text."""
    match = re.fullmatch(r"([0-9]{1,6}) ?(s|min|h|d|w)", duration)
    return None if match is None else int(match[1]) * _SECONDS[match[2]]


def shown(value: Json) -> str:
    """A JSON value as a short text."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return _cut(", ".join(shown(item) for item in value[:50]) + (", ..." * (len(value) > 50)))
    words = {None: "not set", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else _cut(str(value))


def _cut(text: str) -> str:
    """Printable, and at most `MAX_CHARS` of it."""
    cut = escaped(text[:MAX_CHARS])
    return cut if len(text) <= MAX_CHARS else f"{cut}... ({len(text)} characters)"


def label_of(name: str) -> str:
    """A metric's name where it stands many times."""
    return escaped(name if len(name) <= 80 else f"{name[:77]}...")


def _text(value: Json) -> str | None:
    return _cut(value) if isinstance(value, str) and value else None


def _body(first: Mapping[Kind, Record], kind: Kind) -> dict[str, Any]:
    return first[kind].body if kind in first else {}


def _parent(value: Json) -> str | None:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_parent, value))) or None
    return (
        _text(value.get("run") or value.get("model")) if isinstance(value, dict) else _text(value)
    )


def _newest_metrics(records: Sequence[Record]) -> dict[str, Json]:
    """Those of the last epoch, without one those of the last step, and which it is."""
    of_epochs = [r for r in records if r.kind is Kind.METRICS and r.epoch is not None]
    if of_epochs:
        last = max(of_epochs, key=lambda r: (r.epoch or 0, -r.rank))
        return {f"epoch {last.epoch}": last.body.get("metrics")}
    step, metrics = newest_step(records)
    return {f"step {step}.{name}": value for name, value in metrics.items()}


def _code(code: Json) -> Lines:
    if not isinstance(code, dict):
        return []
    commit, changed, problem = (code.get(key) for key in ("commit", "dirty", "problem"))
    if commit is None:
        return [("commit", "not known" if problem is None else f"not known: {shown(problem)}")]
    told = "not known" if changed is None else shown(changed)
    return [("commit", shown(commit)), ("uncommitted changes", told)]


def _data(first: Mapping[Kind, Record], kind: Kind) -> Lines:
    body = _body(first, kind)
    if not body:
        return []
    parts = body.get("parts")
    columns = [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
    text = shown(body.get("kind"))
    if "count" in body:
        text += f", {_number(body['count'])} rows, {_bytes(body.get('bytes'))}"
    made = [(kind.value, text), ("", shown(body.get("root"))), *hidden_numbers(body)]
    for part in columns[:12]:
        shape = part.get("shape")
        by = " × ".join(map(shown, shape[:50])) if isinstance(shape, list) else shown(shape)
        made.append(("", f"{shown(part.get('name'))}: {shown(part.get('dtype'))} {by}"))
    more = body.get("parts_total")
    if isinstance(more, int) and more > 12:
        made.append(("", f"... {_number(more)} parts in all"))
    return made


def _model(first: Mapping[Kind, Record]) -> Iterator[tuple[str, str]]:
    made, weights = _body(first, Kind.ARCHITECTURE), _body(first, Kind.WEIGHTS)
    for key in ("class", "framework"):
        if made.get(key):
            yield key, shown(made[key])
    for key in ("parameter_count", "buffer_count", "tensor_count"):
        if key in weights:
            yield key.replace("_count", "s"), _number(weights[key])
    if weights:
        yield "size", _bytes(weights.get("bytes"))
        yield "initial weights", shown(weights.get("root"))
        covers = weights.get("covers")
        if isinstance(covers, dict):
            yield "covered by the digest", shown(covers.get("of"))
            left = covers.get("not")
            for kind, names in left.items() if isinstance(left, dict) else ():
                yield "not covered", f"{_cut(kind)}: {shown(names)}" if names else _cut(kind)


def _number(value: Json) -> str:
    return f"{value:,}" if isinstance(value, int) else shown(value)


def _bytes(value: Json) -> str:
    return size_of(value) if isinstance(value, int | float) else shown(value)
