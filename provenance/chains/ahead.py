"""Answers that were asked for together, for code that asks for one at a time.

JSON-RPC servers take several calls in one request. A lookup is a chain of calls, each checked
against the others; it stays as it is, and finds here what was asked ahead of it. Only results
are kept: an error, and whatever the server left out, is asked for again by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

Call = tuple[str, tuple[object, ...]]
"""Method and parameters."""
T = TypeVar("T")
V = TypeVar("V")
LOOKUPS: Final = 40
"""Transactions whose calls go into one request: below the limits that hosted nodes set."""


class Ahead(Generic[V]):
    """Results by call, while they last."""

    def __init__(self) -> None:
        self._results: dict[str, V] = {}
        self._lasting = False

    @contextmanager
    def lasting(self) -> Iterator[None]:
        """What is kept inside is forgotten behind; outside, nothing is kept."""
        self._lasting = True
        try:
            yield
        finally:
            self._lasting = False
            self._results.clear()

    def keep(self, call: Call, result: V) -> None:
        """The result of a call."""
        if self._lasting:
            self._results[_name(call)] = result

    def missing(self, calls: Iterable[Call]) -> list[Call]:
        """Those without a result, each once."""
        named = {_name(call): call for call in calls}
        return [call for name, call in named.items() if name not in self._results]

    def find(self, call: Call) -> list[V]:
        """The result, alone in a list; empty where there is none."""
        if not self._results:
            return []
        name = _name(call)
        return [self._results[name]] if name in self._results else []


def slices(items: Sequence[T], size: int = LOOKUPS) -> Iterator[Sequence[T]]:
    """The items in order, ``size`` at a time."""
    for at in range(0, len(items), size):
        yield items[at : at + size]


def _name(call: Call) -> str:
    return json.dumps(call)
