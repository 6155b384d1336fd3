"""Where heads of a ledger come from: bundles, notes, databases, tiles, receipts, networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from provenance.bootstrap import reading
from provenance.bundle.reader import read_bundle
from provenance.bundle.sources import MANIFEST
from provenance.chains.http import Endpoint
from provenance.errors import FormatError, InputError, NetworkUnavailable, ProofError, TooLargeError
from provenance.evidence.ledger_claim import LedgerClaim, claim_of
from provenance.evidence.run_evidence import RunEvidence
from provenance.files import errors_of, read_regular
from provenance.formats.checkpoint import Head, parse_note
from provenance.formats.merkle import KeptTree, ReadSubtrees, Subtree, root_of_hashes
from provenance.formats.note import MAX_NOTE_BYTES, VerifierKey
from provenance.formats.receipt import MAX_RECEIPT_BYTES, Receipt
from provenance.formats.tlog.fork import ForkProof
from provenance.formats.tlog.pieces import KnownPieces, Pieces
from provenance.formats.tlog.tiles import CHECKPOINT, TILE_HEIGHT, TILE_WIDTH, Tile
from provenance.ports.store import LedgerStore
from provenance.ports.values import payload_root
from provenance.settings import NETWORKS, Settings, load
from provenance.settings.urls import sqlite_url

if TYPE_CHECKING:
    from provenance.fsck.onchain import ChainReader, ChainTransaction

HTTP_TIMEOUT_S: Final = 30.0
HTTP_OK: Final = 200
DATABASE: Final = "ledger.db"
PAGE: Final = 1000
"""Heads or roots that are read at once."""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A signed head, and what else is known of the ledger below it; no signature is checked.

    Attributes:
        whole: Every root below follows from ``pieces``; else those at its ``sizes`` may.
    """

    head: Head
    note: str
    pieces: Pieces
    whole: bool = False

    @property
    def sizes(self) -> set[int]:
        """Sizes at which the root may follow; of a whole ledger its own alone."""
        known = self.pieces.sizes if isinstance(self.pieces, KnownPieces) else set()
        return known | {self.head.size}


@dataclass(frozen=True, slots=True)
class SeenAnchor:
    """A root on a network, by whoever sent it there; ``key`` is an address, or empty."""

    network: str
    transaction_id: str
    key: str
    height: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one source says of a ledger.

    Attributes:
        heads: Those that no other head of the source is proven to continue.
        key: The one that the source brings; who trusts it, decides who reads.
        own: The key is that of a deployment, not what a carrier put beside a head.
        problems: What could not be used.
        claim: What a bundle or database says of all runs.
    """

    name: str
    heads: tuple[SeenHead, ...] = ()
    key: VerifierKey | None = None
    anchors: tuple[SeenAnchor, ...] = ()
    problems: tuple[str, ...] = ()
    claim: LedgerClaim | None = None
    own: bool = False


def see(text: str, settings: Settings) -> Seen:
    """Read a source, whichever kind it is.

    Args:
        text: A bundle (folder or zip), a folder or http(s) URL of tlog-tiles, a base
            directory, a configuration, a database URL, a signed note, a fork proof, a file of
            receipts or transaction ids one to a line, ``ethereum[:CONTRACT]``, ``bitcoin`` or
            ``local``.
        settings: For nodes, and for a configuration's base directory.

    Raises:
        InputError: It is none of these, or there is no head in it.
        FormatError, IntegrityError: It does not decode.
        UnavailableError: It cannot be reached.
    """
    path = Path(text)
    if text.partition(":")[0] in NETWORKS and not path.exists():
        return _network(text, settings)
    if (read := tiles_at(text)) is not None:
        return _tiles(text, read)
    if "://" in text:
        return _database(text, replace(settings, database_url=text))
    if (path / MANIFEST).is_file() or (path.is_file() and path.suffix == ".zip"):
        return see_evidence(text, read_bundle(path))
    if path.is_dir():
        if not (path / DATABASE).is_file():
            raise InputError(f"{text}: no {MANIFEST}, {CHECKPOINT} or {DATABASE} is in this folder")
        own = load(None, path, secrets=False)
        return _database(text, replace(own, database_url=sqlite_url(path / DATABASE)))
    return _file(text, path, settings)


def _file(text: str, path: Path, settings: Settings) -> Seen:
    try:
        with path.open("rb") as file:
            data = file.read(16 * MAX_RECEIPT_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{text}: there is no such file, folder or network") from error
    if len(data) > 16 * MAX_RECEIPT_BYTES:
        raise TooLargeError(f"{text}: more than {16 * MAX_RECEIPT_BYTES} bytes")
    lines = data.split()
    if lines and all(len(line.removeprefix(b"0x")) == 64 for line in lines):
        return _transactions(text, [line.decode(errors="replace") for line in lines], settings)
    if b'"anchor"' in data[:MAX_NOTE_BYTES] and b'"payload"' in data[:MAX_NOTE_BYTES]:
        return _known(text, {}, [Receipt.decode(line) for line in data.splitlines() if line])
    if data.startswith(b'{"heads":'):
        # Whoever gets a fork proof can hold its two heads against what he has.
        proof, heads = ForkProof.decode(data), []
        for side in proof.sides:
            head = parse_note(side.note).head
            pieces = KnownPieces(head.size, head.root)
            pieces.add_consistency(proof.size, side.root, head.size, head.root, side.proof)
            heads.append(SeenHead(head, side.note, pieces))
        return Seen(text, tuple(heads), proof.key)
    if data.lstrip()[:1] == b"{":
        return _database(text, load(path, settings.base_dir, secrets=False))
    return see_note(text, note_text(text, data))


def note_text(name: str, data: bytes) -> str:
    """The bytes of a note, at most one more than it may have, as text. Raises FormatError: it is
    too large, or not UTF-8."""
    if len(data) > MAX_NOTE_BYTES:
        raise TooLargeError(f"{name}: more than {MAX_NOTE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{name}: is not UTF-8 text") from None


def see_note(name: str, note: str) -> Seen:
    """One signed head. Raises FormatError: it is none."""
    head = parse_note(note).head
    return Seen(name, (SeenHead(head, note, KnownPieces(head.size, head.root)),))


def _database(name: str, settings: Settings) -> Seen:
    with reading.opened_store(settings, name) as store:
        return see_store(name, store, reading.ledger_key(settings))


def see_store(name: str, store: LedgerStore, key: VerifierKey | None) -> Seen:
    """The ledger up to the newest head, and every head that its levels do not give. Raises
    IntegrityError: levels or entries are gone; InputError: there is no head; StoreUnavailable."""
    with store.snapshot() as tx:
        newest = tx.head()
        if newest is None:
            raise InputError(f"{name}: the ledger is empty: there is no signed head")
        tree = KeptTree(min(newest.size, tx.ledger_size()), tx.subtrees)
        claim = claim_of(tx, tree.size)
        heads, first = [], 0
        while rows := tx.heads(first, PAGE):
            first = rows[-1].size + 1
            stated = [parse_note(row.note).head for row in rows]
            given = tree.roots([min(head.size, tree.size) for head in stated])
            for row, head, root in zip(rows, stated, given, strict=True):
                if head.size > tree.size or head.root != root:
                    heads.append(SeenHead(head, row.note, KnownPieces(head.size, head.root)))
                elif row.size == newest.size:
                    whole = KeptTree(tree.size, reading_later(store))
                    heads.append(SeenHead(head, row.note, whole, True))
    return Seen(name, tuple(heads), key, claim=claim, own=key is not None)


def reading_later(store: LedgerStore) -> ReadSubtrees:
    """Reads the levels in a snapshot each time: what a ledger has never changes."""

    def read(wanted: Sequence[Subtree]) -> Sequence[bytes]:
        with store.snapshot() as tx:
            return tx.subtrees(wanted)

    return read


def see_evidence(name: str, evidence: RunEvidence) -> Seen:
    """The heads of a bundle, those of its receipts too, tied by the proofs that it brings."""
    notes = {item.size: item.note for item in evidence.heads}
    heads = {(s.head.size, s.head.root): notes[at] for at, s in evidence.signed_heads().items()}
    receipts = []
    for item in evidence.receipts:
        try:
            receipts.append(Receipt.decode(item.data))
        except FormatError:
            continue  # verifying tells
    found = _known(name, heads, receipts, evidence)
    key = VerifierKey.from_vkey(evidence.vkey) if evidence.vkey is not None else None
    return Seen(name, found.heads, key, (), found.problems, evidence.ledger)


def _known(
    name: str,
    notes: Mapping[tuple[int, bytes], str],
    receipts: Iterable[Receipt],
    evidence: RunEvidence | None = None,
) -> Seen:
    """Heads with what proofs tell of them."""
    every, problems = dict(notes), []
    known = {place: KnownPieces(*place) for place in every}
    for receipt in receipts:
        head, ledger = parse_note(receipt.head).head, receipt.ledger
        place = (head.size, head.root)
        every.setdefault(place, receipt.head)
        pieces = known.setdefault(place, KnownPieces(*place))
        try:
            pieces.add_inclusion(receipt.root, ledger.index, *place, ledger.proof)
        except ProofError as error:
            problems.append(f"{name}: receipt: {error}")
    at_size: dict[int, list[tuple[int, bytes]]] = {}
    for place in known:
        at_size.setdefault(place[0], []).append(place)
    roots = {entry.index: entry.root for entry in evidence.entries} if evidence else {}
    for item in evidence.inclusions if evidence else ():
        for place in at_size.get(item.size, ()) if item.index in roots else ():
            try:
                known[place].add_inclusion(roots[item.index], item.index, *place, item.proof)
            except ProofError as error:
                problems.append(f"{name}: {error}")
    continued = set()
    steps = evidence.consistencies if evidence else ()
    for step in sorted(steps, key=lambda c: (c.new_size, c.old_size)):
        olds, news = at_size.get(step.old_size, ()), at_size.get(step.new_size, ())
        for old, new in ((old, new) for old in olds for new in news if old != new):
            try:
                known[new].add_consistency(*old, *new, step.proof)
            except ProofError as error:
                problems.append(f"{name}: {error}")
                continue
            known[new].update(known[old])
            continued.add(old)
    if not every:
        raise InputError(f"{name}: no signed head is in it")
    heads = [
        SeenHead(parse_note(note).head, note, known[place])
        for place, note in every.items()
        if place not in continued
    ]
    return Seen(name, tuple(heads), None, (), tuple(problems))


# --- tiles -------------------------------------------------------------------------------

Read = Callable[[str, int], bytes]
"""A file by its path, at most so many bytes and one more."""


def _tiles(name: str, read: Read) -> Seen:
    note = note_text(f"{name}: {CHECKPOINT}", read(CHECKPOINT, MAX_NOTE_BYTES))
    head = parse_note(note).head
    cache: dict[str, bytes] = {}

    def subtree(height: int, at: int) -> bytes:
        level, within = divmod(height, TILE_HEIGHT)
        number, offset = divmod(at << within, TILE_WIDTH)
        width = min((head.size >> TILE_HEIGHT * level) - number * TILE_WIDTH, TILE_WIDTH)
        tile = Tile(level, number, width)
        if tile.path not in cache:
            cache[tile.path] = read(tile.path, width * 32)
        hashes = cache[tile.path][offset * 32 : (offset + (1 << within)) * 32]
        if len(cache[tile.path]) != width * 32:
            raise FormatError(f"{name}: {tile.path}: expected {width * 32} bytes")
        return root_of_hashes([hashes[i : i + 32] for i in range(0, len(hashes), 32)])

    tree = KeptTree(head.size, lambda wanted: [subtree(*pair) for pair in wanted])
    return Seen(name, (SeenHead(head, note, tree, True),))


def tiles_at(text: str) -> Read | None:
    """Reads the tiles at a URL or in a folder; None where it is neither."""
    if text.partition("://")[0] in ("http", "https"):
        return _url(text)
    return _folder(Path(text)) if (Path(text) / CHECKPOINT).is_file() else None


def _folder(folder: Path) -> Read:
    def read(path: str, limit: int) -> bytes:
        with errors_of(folder / path, "read"):
            return read_regular(folder / path, limit + 1)

    return read


def _url(url: str) -> Read:
    endpoint = Endpoint(url, "SOURCE", HTTP_TIMEOUT_S)

    def read(path: str, limit: int) -> bytes:
        answer = endpoint.ask(f"/{path}", limit=limit)
        if answer.status != HTTP_OK:
            raise NetworkUnavailable(f"{endpoint.where}: {path}: HTTP {answer.status}")
        return answer.body

    return read


# --- networks ----------------------------------------------------------------------------


def _network(text: str, settings: Settings) -> Seen:
    """What the configured sender, wallet or file anchored; of a contract, what anybody stored."""
    from provenance.fsck.chains import EthereumReader
    from provenance.fsck.onchain import Question

    network, _, contract = text.partition(":")
    reader = _reader(text, settings, network)
    ids: frozenset[str] = frozenset()
    if isinstance(reader, EthereumReader) and (contract or not reader.senders):
        address = contract or reader.settings.contract_address
        if address is None:
            raise InputError(f"{text}: no contract_address and no key are configured")
        reader = EthereumReader(replace(reader.settings, contract_address=address))
        ids = frozenset(reader.stores())
    view = reader.read(Question(ids, frozenset(), frozenset()))
    return Seen(text, anchors=_anchors(network, view.transactions), problems=view.notes)


def _reader(text: str, settings: Settings, network: str) -> ChainReader:
    reader = reading.chain_readers(settings).get(network)
    if reader is None:
        raise InputError(f"{text}: {network} is not configured: give its node with --config")
    return reader


def _transactions(text: str, ids: list[str], settings: Settings) -> Seen:
    """Transactions by id: ``0x`` is Ethereum's, else Bitcoin's."""
    from provenance.fsck.onchain import Question

    anchors: list[SeenAnchor] = []
    missing: list[str] = []
    for network in ("ethereum", "bitcoin"):
        wanted = frozenset(i for i in ids if i.startswith("0x") == (network == "ethereum"))
        if not wanted:
            continue
        view = _reader(text, settings, network).read(Question(wanted, frozenset(), frozenset()))
        anchors += _anchors(network, [t for t in view.transactions if t.id in wanted])
        found = {anchor.transaction_id for anchor in anchors}
        missing += [f"{i}: carries no root on {network}" for i in sorted(wanted - found)]
    return Seen(text, anchors=tuple(anchors), problems=tuple(missing))


def _anchors(network: str, transactions: Iterable[ChainTransaction]) -> tuple[SeenAnchor, ...]:
    mined = [t for t in transactions if t.place == "mined"]
    mined.sort(key=lambda t: (t.height or 0, t.nonce or 0))
    return tuple(
        SeenAnchor(network, t.id, t.key, t.height or 0, root)
        for t in mined
        if t.payload is not None and (root := payload_root(t.payload)) is not None
    )
