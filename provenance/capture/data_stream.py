"""Data that comes item by item: a generator, an IterableDataset, a queue.

The digest grows with each item, 32 bytes for each level of its tree, and is that of the list of
the items (:mod:`provenance.fingerprint.datasets`): same items in the same order, same root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Final, Protocol, TypeVar

from provenance.capture.weights.snapshot import translated
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.data.parts import DatasetDigest, stream_digest
from provenance.fingerprint.elements import element_hasher
from provenance.fingerprint.hashers import HashFactory
from provenance.formats.merkle import Frontier
from provenance.log import get_logger

log = get_logger("provenance")
Item = TypeVar("Item")

_BATCH: Final = 1024


class ItemTaker(AbstractContextManager[object], Protocol):
    """What takes the items of a stream for their set, while its block is open."""

    def add(self, item: object, where: str) -> None:
        """One item; ``where`` it is, for messages."""


class DataStream:
    """Takes items, and records their digest at the end; for one thread.

    Usage::

        with tracker.data_stream("train") as add:
            for item in source:
                add(item)

    What stays of an item is its digest: it may be changed or reused afterwards. Where the block
    ends by an exception nothing is recorded.

    Args:
        record: Is given the digest, once. None records nothing, as on ranks other than 0.
        factory: Content hash.
        lost: Is told what keeps a loop's items from being recorded, once.
        items: Takes the items too; open while ``record`` is called.
    """

    def __init__(
        self,
        record: Callable[[DatasetDigest], None] | None,
        factory: HashFactory,
        lost: Callable[[ProvenanceError], object] = bool,
        items: ItemTaker | None = None,
    ) -> None:
        self._record, self._lost, self._items = record, lost, items
        self._open = ExitStack()
        self._factory = factory
        self._digest = element_hasher(factory)
        self._tree = Frontier.empty()
        self._waiting: list[bytes] = []
        self._nbytes = 0
        self._entered = self._ended = False

    def __enter__(self) -> DataStream:
        self._entered = True
        self._begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            if kind is None:
                self._end()

    def __call__(self, item: object) -> None:
        """Add an item. Raises InputError: it has no canonical bytes, or the stream has ended."""
        if self._ended:
            raise InputError("data_stream: an item after its end, expected it within the block")
        if self._record is None:
            return
        index = self._tree.size + len(self._waiting)
        leaf, nbytes = self._digest(item, index)
        if self._items is not None:
            self._items.add(item, f"data item {index}")
        self._nbytes += nbytes
        self._waiting.append(leaf)
        if len(self._waiting) == _BATCH:
            self._grow()

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, each of them added first; raises nothing of its own into their loop.

        Outside of a ``with`` block the digest is recorded once ``items`` are exhausted; where the
        loop ends before that, a line of the log says that nothing was, and where an item has no
        canonical bytes, or there is none, a gap record too.
        """
        exhausted = False
        try:
            if not self._entered:
                self._guarded(self._begin)
            for item in items:
                self._guarded(partial(self, item))
                yield item
            exhausted = True
            if not self._entered:
                self._guarded(self._end)
        finally:
            if not self._entered:
                self._guarded(self._open.close)
                if not exhausted:
                    log.warning("data_stream: its loop ended before its items, not recorded")

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        # Items are of anybody's types, and a training goes on between two of them.
        except Exception as error:  # noqa: BLE001  as above
            self._record = None
            self._lost(translated(error))

    def _begin(self) -> None:
        if self._items is not None:
            self._open.enter_context(self._items)

    def _grow(self) -> None:
        self._tree = self._tree.extend(self._waiting)
        self._waiting.clear()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._record is not None:
            self._grow()
            size = self._tree.size
            self._record(stream_digest(self._tree.root(), size, self._nbytes, self._factory))
