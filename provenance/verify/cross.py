"""What several networks together say of one seal: one head or heads of one ledger, and a time.

A root existed when a block was made that carries a head which holds it. Heads are nested, so
every anchor of a later head bounds the root as well, and the earliest bound counts. These bounds
are upper ones. That a root is no older, no anchor of it shows; a block does that a seed was drawn
from, whose record stands behind the root (:mod:`provenance.verify.checks.beyond.seeds`).

A block's time may be off by its chain's own rules:

``ethereum``  12 s: the time is that of the block's slot, and the slot is so long
              (consensus specs, ``SECONDS_PER_SLOT``)
``bitcoin``   2 h: nodes take no block that is further ahead of their clocks (Bitcoin Core,
              ``MAX_FUTURE_BLOCK_TIME``), nor one that is behind the median of the last eleven,
              which is about an hour old
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from typing import Final, Literal, NamedTuple

SLACK_S: Final = {"ethereum": 12.0, "bitcoin": 7200.0}
"""Seconds that the real time of a block may be off its header's, on chains that have a time."""
Heads = Literal["same", "tied", "untied"]


@dataclass(frozen=True, slots=True)
class CrossAnchor:
    """An anchor of a seal. ``chain`` is for people; ``status`` is that of its network's check;
    ``time`` is the block's in Unix seconds and ``slack`` how far it may be off, None where the
    network has no time."""

    network: str
    chain: str
    size: int
    root: bytes
    status: str
    time: float | None
    slack: float | None

    @property
    def not_after(self) -> float | None:
        """When all under its head existed at the latest."""
        return None if self.time is None or self.slack is None else self.time + self.slack


@dataclass(frozen=True, slots=True)
class CrossSeal:
    """A seal that two or more networks have.

    Attributes:
        heads: ``same``: all carry one head. ``tied``: larger ones are proven to extend the
            smaller. ``untied``: that proof is missing or does not hold.
        not_after: When the root existed at the latest, Unix seconds; None where no anchor has
            a time. by: The chain that says so.
        shown: A node, headers or block hashes that the reader trusts showed that block.
        not_before: Before when the root was not there, Unix seconds; None where no seed's block,
            which was shown, says so. since: The block that does.
    """

    seal: str
    heads: Heads
    anchors: tuple[CrossAnchor, ...]
    not_after: float | None
    by: str | None
    shown: bool
    not_before: float | None = None
    since: str | None = None

    @property
    def line(self) -> str:
        """For people."""
        sizes = sorted({anchor.size for anchor in self.anchors})
        heads = (
            f"head {sizes[0]}" if self.heads == "same" else f"heads {', '.join(map(str, sizes))}"
        )
        heads += {"same": "", "tied": " of one ledger", "untied": ", which nothing ties"}[
            self.heads
        ]
        line = f"{self.seal}: {heads} on {', '.join(a.chain for a in self.anchors)}"
        begun = None
        if self.not_before is not None:
            begun = f"{moment(self.not_before)} (a seed of {self.since})"
        if self.not_after is None:
            line += f"; made after {begun}" if begun else ""
            return f"{line}; none of them has a time"
        sure = "" if self.shown else ", if the block in its receipt is the chain's"
        end = f"{moment(self.not_after)}, says {self.by}{sure}"
        return f"{line}; " + (f"made between {begun} and {end}" if begun else f"existed by {end}")


def moment(seconds: float) -> str:
    """A block's time, for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


class Bound(NamedTuple):
    """An upper bound of all entries of its head, and whether its block was shown."""

    size: int
    not_after: float
    chain: str
    shown: bool


class Bounds:
    """The bounds that anchors give, to be asked by entry: one shown before any other, then the
    earliest."""

    def __init__(self, anchors: Iterable[CrossAnchor]) -> None:
        bounds = [
            Bound(anchor.size, anchor.not_after, anchor.chain, anchor.status == "verified")
            for anchor in anchors
            if anchor.not_after is not None
        ]
        bounds.sort(key=lambda bound: -bound.size)
        best = accumulate(
            bounds, partial(min, key=lambda bound: (not bound.shown, bound.not_after))
        )
        self._best = list(best)[::-1]
        """By size, each the best of its size and of those above."""
        self._sizes = [bound.size for bound in reversed(bounds)]

    def of(self, index: int) -> Bound | None:
        """The bound of an entry; None where no head holds it."""
        at = bisect_right(self._sizes, index)
        return self._best[at] if at < len(self._best) else None


class Clock(NamedTuple):
    """How far the ledger's clock is behind real time, as one anchor bounds it, in seconds.

    The entry was made before the block, and the block before the ledger saw it. Both moments
    are of the ledger's clock, which may be wrong; but it is the same clock for all chains.
    """

    chain: str
    least: float
    most: float


def clock_of(anchor: CrossAnchor, created_at: float, confirmed_at: float) -> Clock | None:
    """What an anchor says of the ledger's clock; None where it has no time."""
    if anchor.time is None or anchor.slack is None:
        return None
    least = anchor.time - anchor.slack - confirmed_at
    return Clock(anchor.chain, least, anchor.time + anchor.slack - created_at)


def contradiction(clocks: Sequence[Clock]) -> str | None:
    """Why no clock of the ledger fits the times of all chains; None where one does."""
    if len(clocks) < 2:
        return None
    least = max(clocks, key=lambda clock: clock.least)
    most = min(clocks, key=lambda clock: clock.most)
    if least.least <= most.most:
        return None
    return (
        f"no clock of the ledger fits the times of the blocks: by {least.chain} it is "
        f"{least.least:.0f} s behind or more, by {most.chain} {most.most:.0f} s or less"
    )
