"""Commitments in the place of numbers: what the shipper does to a record of a run that asks for it.

The trainer writes the number into the spool, as always. The record has ``commitments`` beside
``metrics``, ``privacy``, ``results`` or a dataset's digest: by name ``{"point": 66 hex, "scale":
int}``, with a null where the value is no number that fits, or several have the name. With ``hide``
the numbers themselves are left out. So they are of steps, which are not committed to and say what
is ``hidden``; with an epsilon all of its budget but delta and accountant, and with a dataset's
count its bytes, parts and item set.

Their openings (:mod:`provenance.capture.ship.openings`) are on the disk before the record leaves
this host.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from provenance.capture.keys import RunKeys
from provenance.capture.ship.openings import keep_openings, openings_path
from provenance.formats.event import COUNTS, Event, numbers_of, places_of, without_numbers
from provenance.formats.record import Json, Kind
from provenance.log import get_logger
from provenance.proofs.bulletproofs.commitment import Opening, in_units, opening_of
from provenance.settings import CommitmentSettings

_log = get_logger("provenance.shipper")
_KINDS: Final = (Kind.METRICS, Kind.PRIVACY, Kind.RESULTS, Kind.STEPS, *COUNTS.values())


def warn_of_counts(settings: CommitmentSettings) -> None:
    """Say what hiding the sample count of a dataset is worth, where that is asked for."""
    names = settings.hide and sorted(COUNTS.keys() & settings.metrics)
    if names:
        _log.warning(
            "a sample count is hidden in the record of the data alone: who has the data knows it "
            "by its root, and batch sizes, steps and sample rates elsewhere may tell it",
            hidden=", ".join(names),
        )


class Committer:
    """Commits to the numbers of one producer's events.

    Args:
        keys: The run's, with ``commitments``.
        producer: 16 bytes.
        run_dir: The run's folder in ``<base>/spool``.
    """

    def __init__(self, keys: RunKeys, producer: bytes, run_dir: Path) -> None:
        assert keys.commitments is not None
        self._settings, self._key, self._producer = keys.commitments, keys.blinding, producer
        self._path = openings_path(run_dir.parent.parent, keys.run)
        self._new: list[Opening] = []
        self._warned: set[str] = set()

    def committed(self, event: Event) -> Event:
        """The event as it leaves this host."""
        if event.kind not in _KINDS:
            return event
        numbers, names = numbers_of(event.kind, event.fields), self._settings.metrics
        found = {name: places for name in names if (places := list(places_of(numbers, name)))}
        if not found:
            return event
        hidden = self._settings.hide
        fields = dict(event.fields)
        if hidden:
            fields = without_numbers(event.kind, fields, found)
        if event.kind is not Kind.STEPS:
            fields["commitments"] = {
                name: self._commit(event, name, places) for name, places in found.items()
            }
        elif hidden:
            fields["hidden"] = list(found)
        return replace(event, fields=fields)

    def keep(self) -> None:
        """Put the openings so far on the disk. Raises OSError: it does not take them."""
        if self._new:
            keep_openings(self._path, self._new)
            self._new.clear()

    def _commit(self, event: Event, name: str, places: list[tuple[dict[str, Any], str]]) -> Json:
        (owner, key), scale = places[0], self._settings.scale
        value = in_units(owner[key], scale) if len(places) == 1 else None
        if value is None:
            if name not in self._warned:
                self._warned.add(name)
                problem = "nothing can be proved of it: no single number, or one out of range"
                _log.warning(problem, name=name, kind=event.kind.value, epoch=event.epoch)
            return {"point": None, "scale": scale}
        opening = opening_of(self._key, self._producer, event.seq, name, value)
        self._new.append(opening)
        return {"point": opening.commitment.format().hex(), "scale": scale}
