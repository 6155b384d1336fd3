"""Shipment: one run on its way from the spool into the transport.

Order of a pass, which is what makes a crash at any point harmless: learn what the database
has committed and whether the transport still has the rest; read new events; sync their
files; append the signed batches; move the cursor.

Over 400 lines: a run's whole way, in its order.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from provenance import tracing
from provenance.capture.keys import RunKeys, load_run_keys
from provenance.capture.reasons import UNSHIPPED, note
from provenance.capture.ship.batches import BatchMaker
from provenance.capture.ship.cleanup import clear_run, delete_committed, has_ended, is_done
from provenance.capture.ship.cursor import Cursor, Cursors, Stall, load_cursors, save_cursors
from provenance.capture.ship.host import HostCollector
from provenance.capture.ship.keyless import signed
from provenance.capture.ship.reader import ProducerReader, first_cursor, later_release
from provenance.capture.spool import Corruption, RunSpool, Segment
from provenance.errors import (
    BadSignatureError,
    FormatError,
    InputError,
    MissingExtraError,
    UnavailableError,
)
from provenance.formats.producers.acknowledgement import (
    GATE,
    HELD,
    NOBODY,
    SEALED,
    Acknowledgement,
    open_acknowledgement,
)
from provenance.formats.producers.certificate import Certificate
from provenance.log import get_logger
from provenance.ports.transport import EventTransport

FLUSH_BYTES = 4 * 1024 * 1024
SEALED_POLL_S = 60.0
_MAX_LOGGED = 1000
_MAX_CHAINS = 4096
LedgerKeys = Callable[[], Sequence[bytes]]
"""Public keys (32 bytes) of the ledger as far as they are known now."""

_log = get_logger("provenance.shipper")


@dataclass(slots=True)
class Shipped:
    """Counts of one pass over the spool.

    Attributes:
        replaced: Events without a form as a record, for which a gap record went.
        missing: Events that the spool has lost, for each of which a gap record went.
        rewound: Events to be shipped again, because the transport lost them.
        pending: Events in the transport that the database has not committed yet.
        waiting: Runs held back: the transport is full of unread batches, or the ledger says so.
        unusable: Runs that cannot be shipped (no key, unreadable files); the log says why.
    """

    runs: int = 0
    events: int = 0
    batches: int = 0
    bytes: int = 0
    corruptions: int = 0
    replaced: int = 0
    missing: int = 0
    rewound: int = 0
    deleted_segments: int = 0
    finished_runs: int = 0
    pending: int = 0
    waiting: int = 0
    unusable: int = 0

    def add(self, other: Shipped) -> None:
        """Sum up; of what describes a moment the newer value counts."""
        for entry in fields(Shipped):
            value = getattr(other, entry.name)
            if entry.name not in ("runs", "pending", "waiting", "unusable"):
                value += getattr(self, entry.name)
            setattr(self, entry.name, value)


class Contact:
    """The transport during one pass; asked only where a run needs it."""

    def __init__(
        self, transport: EventTransport, max_backlog: int, ledger_keys: Sequence[bytes]
    ) -> None:
        self.transport, self.ledger_keys = transport, ledger_keys
        self.max_backlog = max_backlog

    @cached_property
    def generation(self) -> str | None:
        """Read before anything is appended: cursors saved with it tell a later loss."""
        name = self.transport.generation()
        if name is None:  # new, or emptied: an append of nothing names it
            self.transport.append([])
            name = self.transport.generation()
        return name

    @cached_property
    def backlog(self) -> int:
        """Entries in all streams at the first question."""
        return self.transport.backlog()


class Shipment:
    """What the shipper (:class:`provenance.capture.ship.loop.Shipper`) knows of a run between
    passes."""

    def __init__(self, path: Path, stall_s: float, abandoned_s: float) -> None:
        self.path = path
        self._stall = Stall(stall_s)
        self._abandoned_s = abandoned_s
        self._keys: RunKeys | None = None
        self._acknowledged: Mapping[bytes, Acknowledgement] = {}
        self._claimed: Mapping[bytes, int] = {}
        self._chains: dict[tuple[bytes, int], bytes] = {}
        self._signers: dict[bytes, tuple[Certificate, Ed25519PrivateKey]] = {}
        self._ask_at = 0.0
        self._logged: set[str] = set()
        self.is_cleared = False
        try:
            self.cursors = load_cursors(path)
        except (FormatError, OSError) as error:
            self._warn_once("cursor file is unusable; shipping again", reason=str(error))
            self.cursors = Cursors()

    def serve(self, spool: RunSpool, contact: Contact, total: Shipped) -> None:
        """One pass. Files that cannot be read are logged, and tried again in the next. Raises
        TransportUnavailable, ConfigError: the cursors stand at the last batch it took."""
        total.runs += 1
        try:
            self._serve(spool, contact, total)
        except OSError as error:
            self._unreadable(error, total)

    def _serve(self, spool: RunSpool, contact: Contact, total: Shipped) -> None:
        if self.new(spool) or self.cursors.unacknowledged:
            self._compare(spool, contact, total)
            new = self.new(spool)  # a rewind makes more
            if new and self._has_keys(total) and self._has_room(contact, total):
                for group in new:
                    try:
                        self._ship(group, contact.transport, total)
                    except OSError as error:  # the other producers' files may be fine
                        self._unreadable(error, total)
        total.deleted_segments += delete_committed(spool, self.cursors)
        total.pending += self.cursors.unacknowledged
        self.is_cleared = self.is_cleared and not spool.producers
        if not self.is_cleared and self._has_ended(spool, contact):
            clear_run(spool)
            total.finished_runs += 1
            self.is_cleared = True

    def _has_ended(self, spool: RunSpool, contact: Contact) -> bool:
        """Ranks may be on other hosts: whether the run is sealed is asked now and then."""
        if has_ended(spool, self.cursors, self._abandoned_s):
            return True
        if not self.cursors.producers or not is_done(spool, self.cursors):
            return False
        now = time.monotonic()
        if self._acknowledged.get(NOBODY) != SEALED and now >= self._ask_at:
            self._ask_at = now + SEALED_POLL_S
            self._read_acknowledgements(spool, contact)
        return self._acknowledged.get(NOBODY) == SEALED

    # --- what is to be done -----------------------------------------------------------

    def new(self, spool: RunSpool) -> list[tuple[Segment, ...]]:
        """Producers with new events, that which wrote last at the end: a child that was killed
        says no end, and the run is sealed when its parent's end arrives."""
        new = []
        for producer, group in spool.producers.items():
            cursor, newest = self.cursors.producers.get(producer), group[-1]
            if (
                cursor is None
                or cursor.segment < newest.index
                or (cursor.segment == newest.index and newest.size() > cursor.offset)
            ):
                new.append(group)
        return sorted(new, key=lambda group: group[-1].written_at()) if len(new) > 1 else new

    def _compare(self, spool: RunSpool, contact: Contact, total: Shipped) -> None:
        """What has been committed, and does the transport still have the rest?"""
        cursors, generation = self.cursors, contact.generation
        changed, backlog = False, contact.transport.backlog(spool.run)
        self._read_acknowledgements(spool, contact)
        for producer, said in self._acknowledged.items():
            cursor, group = cursors.producers.get(producer), spool.producers.get(producer, ())
            if cursor is not None and said.count < cursor.acked:
                changed |= self._fall_back(group, cursor, said, total)
            elif cursor is not None:
                changed |= self._commit(producer, cursor, said)
        if cursors.generation != generation:
            if cursors.generation is not None:
                self._rewind("transport lost its data", total)
            cursors.generation = generation
            changed = True
        if self._is_held and cursors.unacknowledged:
            self._rewind("the ledger takes nothing of this run for now, as its status says", total)
            changed = True
        known = [
            (cursor.next, max(cursor.acked, self._claimed.get(producer, 0)))
            for producer, cursor in cursors.producers.items()
        ]
        waits = any(acked < shipped for shipped, acked in known)
        if self._stall.is_lost(sum(acked for _, acked in known), waits, backlog):
            self._rewind("events were taken and never committed", total)
            changed = True
        if changed:
            self._save()

    @property
    def _is_held(self) -> bool:
        return self._acknowledged.get(GATE) == HELD

    def _read_acknowledgements(self, spool: RunSpool, contact: Contact) -> None:
        """Those that the ledger's key signed; anybody may write into the transport.

        Without a key nothing is believed, and so nothing deleted: what is claimed then only
        keeps events from being shipped again and again.
        """
        answers = contact.transport.acknowledged(spool.run)
        believed: dict[bytes, Acknowledgement] = {}
        for producer, data in answers.items():
            for key in contact.ledger_keys:
                with contextlib.suppress(FormatError, BadSignatureError):
                    believed[producer] = open_acknowledgement(data, spool.run, producer, key)
        self._acknowledged, self._claimed = believed, {}
        if answers and not contact.ledger_keys:
            self._claimed = {p: int.from_bytes(data[:8], "big") for p, data in answers.items()}
            self._warn_once(
                "the ledger's key is not known here, so the spool is kept: set trust.ledger_key "
                "or PROVENANCE_LEDGER_KEY to the key that `provenance doctor` prints"
            )
        elif len(believed) < len(answers):
            unsigned = "an acknowledgement is not signed by the ledger's key; it is ignored"
            self._warn_once(unsigned, run=self.path.name)

    def _commit(self, producer: bytes, cursor: Cursor, said: Acknowledgement) -> bool:
        """Take an acknowledgement in; False where it says nothing new, or cannot be meant.

        What was never shipped from here cannot have been committed, but where a lost cursor
        file left the chain unknown.
        """
        if cursor.chain is None and said.count >= cursor.next:
            cursor.next, cursor.chain = said.count, said.chain
        elif said.count > cursor.next or said.count <= cursor.acked:
            return False
        key = (producer, said.count)
        own = cursor.chain if said.count == cursor.next else self._chains.get(key)
        if own is not None and own != said.chain:
            self._warn_once("the ledger acknowledges other events than these", run=self.path.name)
            return False
        cursor.acked, cursor.acked_chain = said.count, said.chain
        for key in [key for key in self._chains if key[0] == producer and key[1] <= said.count]:
            del self._chains[key]
        return True

    def _fall_back(
        self, group: Sequence[Segment], cursor: Cursor, said: Acknowledgement, total: Shipped
    ) -> bool:
        """The database has fewer events than it had, as one restored from a backup: it is given
        them again where their segments are still here. An old acknowledgement costs just that."""
        details = {"run": self.path.name, "acknowledged": said.count, "before": cursor.acked}
        first = first_cursor(group[0]).next if group else cursor.next
        fewer = "the ledger acknowledges fewer events than before"
        if first > said.count:
            gone = f"{fewer}, and the spool no longer has them"
            self._warn_once(gone, **details, spool_from=first)
            return False
        again = cursor.next - said.count
        total.rewound += again
        _log.warning(fewer, **details, shipping_again=again)
        cursor.acked, cursor.acked_chain = said.count, said.chain
        cursor.segment, cursor.offset, cursor.next, cursor.chain = 0, 0, said.count, said.chain
        return True

    def _rewind(self, why: str, total: Shipped) -> None:
        again = self.cursors.rewind()
        total.rewound += again
        _log.warning(why, run=self.path.name, shipping_again=again)

    def _has_keys(self, total: Shipped) -> bool:
        """Signed by Sigstore where that is asked for and can be had; tried before the ledger has
        anything of the run, once by each shipper."""
        if self._keys is not None:
            return True
        try:
            keys = load_run_keys(self.path)
            if keys.commitments is not None:
                import provenance.capture.ship.commitments  # noqa: F401  its package may be missing
            self._keys = keys
        except (InputError, FormatError, MissingExtraError) as error:
            total.unusable += 1
            self._warn_once(f"run {self.path.name} cannot be shipped", reason=str(error))
            note(self.path, UNSHIPPED, str(error))
            return False
        note(self.path, UNSHIPPED, None)
        begun = any(cursor.acked for cursor in self.cursors.producers.values())
        try:
            self._keys = signed(self.path, keys, may_sign=not begun)
        except UnavailableError as error:
            self._warn_once("no identity signs this run", run=str(keys.run), reason=str(error))
        return True

    def _has_room(self, contact: Contact, total: Shipped) -> bool:
        """False where the ledger takes nothing of the run, or unread batches pile up: what is new
        waits in the spool."""
        if self._is_held:
            total.waiting += 1
            return False
        if contact.backlog < contact.max_backlog:
            return True
        total.waiting += 1
        self._warn_once("transport is full of unread batches; are hashing workers running?")
        return False

    # --- doing it ---------------------------------------------------------------------

    def _ship(self, group: tuple[Segment, ...], transport: EventTransport, total: Shipped) -> None:
        first, keys = group[0], self._keys
        assert keys is not None
        if later := later_release(first):
            self._blocked(first, later, total)
            return
        cursor = self.cursors.producers.get(first.producer)
        if cursor is None:
            cursor = first_cursor(first)
            self.cursors.producers[first.producer] = cursor
            if first.producer in self._acknowledged:
                self._commit(first.producer, cursor, self._acknowledged[first.producer])
        if cursor.chain is None:
            gone = f"the events before {cursor.next} are gone and nobody acknowledged them"
            self._blocked(first, f"{gone}; what follows waits in the spool", total)
            return
        if first.producer not in self._signers:
            self._signers[first.producer] = keys.producer(first.producer, first.rank)
        signer = self._signers[first.producer]
        known = cursor.acked or self._claimed.get(first.producer)
        identity = None if known else keys.identity
        maker = BatchMaker(*signer, keys.salt, identity, cursor.next, cursor.chain)
        if keys.commitments is not None:
            from provenance.capture.ship.commitments import Committer

            maker.committer = Committer(keys, first.producer, self.path)
        maker.host = HostCollector(keys, first.producer, self.path)
        reader = ProducerReader(group, cursor)
        for segment, item in reader:
            if isinstance(item, Corruption):
                self._report(segment, item, total)
                continue
            maker.add(item)
            if maker.pending_bytes >= FLUSH_BYTES:
                self._flush(reader, maker, transport, total)
        self._flush(reader, maker, transport, total)
        if reader.blocked is not None:
            self._blocked(first, f"{reader.blocked}; what follows waits", total)
        total.replaced += maker.replaced
        total.missing += reader.missing

    def _flush(
        self, reader: ProducerReader, maker: BatchMaker, transport: EventTransport, total: Shipped
    ) -> None:
        cursor, began_ns = self.cursors.producers[maker.producer], time.time_ns()
        reader.sync()
        events, batches = maker.pending, maker.take()
        if batches:
            transport.append(batches)
            tracing.note(
                "ship", UUID(self.path.name), began_ns, events=events, batches=len(batches)
            )
            total.events += events
            total.batches += len(batches)
            total.bytes += sum(map(len, batches))
        if reader.move(cursor, maker.chain):
            self._chains[maker.producer, cursor.next] = maker.chain
            if len(self._chains) > _MAX_CHAINS:  # nothing is acknowledged: the oldest goes
                del self._chains[next(iter(self._chains))]
            self._save()

    def _save(self) -> None:
        """A full disk must not stop the shipping that will make room on it."""
        try:
            save_cursors(self.path, self.cursors)
        except OSError as error:
            self._warn_once("cursors kept in memory only", reason=error.strerror)

    def _report(self, segment: Segment, damage: Corruption, total: Shipped) -> None:
        """Say so, and keep the file under a second name: somebody may want to look at it."""
        total.corruptions += 1
        with contextlib.suppress(OSError):
            os.link(segment.path, segment.path.with_suffix(".damaged"))
        self._warn_once(
            f"spool segment {segment.path.name} is damaged; shipping what follows",
            start=damage.start,
            end=damage.end,
            reason=damage.reason,
        )

    def _blocked(self, first: Segment, why: str, total: Shipped) -> None:
        total.unusable += 1
        self._warn_once(f"producer {first.producer.hex()[:8]}: {why}", run=self.path.name)

    def _unreadable(self, error: OSError, total: Shipped) -> None:
        total.unusable += 1
        self._warn_once(f"cannot read {error.filename or self.path}", reason=error.strerror)

    def _warn_once(self, event: str, **details: object) -> None:
        """Log a warning once, not at every pass."""
        key = f"{event} {details}"
        if key not in self._logged and len(self._logged) < _MAX_LOGGED:
            self._logged.add(key)
            _log.warning(event, **details)
