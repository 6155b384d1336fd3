"""``provenance log compare``: are two sources of one ledger of one story?

======================  ==================================================================
``same``                the newest heads are of one size and root
``consistent``          a proof ties the newest heads: one ledger continues the other
``fork``                the key signed two heads that no append-only ledger can have, with a
                        proof; or its sender anchored a root that the ledger never had
``contradiction``       the heads may fit, and what two bundles or databases claim of the
                        ledger's runs does not: nothing signs that, and one of them is wrong
``unknown``             what is at hand ties the sizes neither way
``different``           another key or name: two ledgers, which may differ
======================  ==================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal

from provenance.app.log.sources import PAGE, Seen, SeenAnchor, SeenHead
from provenance.errors import BadSignatureError, IntegrityError, ProofError, TooLargeError
from provenance.evidence.ledger_claim import contradictions
from provenance.formats.checkpoint import open_head, parse_note
from provenance.formats.fields import as_json
from provenance.formats.json_text import canonical_json
from provenance.formats.merkle import KeptTree, verify_consistency
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.fork import ForkProof, ForkSide
from provenance.formats.tlog.pieces import KnownPieces, Pieces, consistency, root_at

Result = Literal["same", "consistent", "fork", "contradiction", "unknown", "different"]
MAX_HEADS: Final = 1000
"""Heads without a proof between them that are held against each other."""
MAX_SIZES: Final = 1_000_000
"""Entries of a ledger whose roots at all sizes are looked for on networks."""
EXIT: Final = {"same": 0, "consistent": 0, "fork": 1, "contradiction": 1}
"""Exit codes; 3 of all else."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of two sources.

    Attributes:
        key: Whose ledger it is; None where no key fits.
        first, second: The newest head of each that the key signed; None for a network's roots.
        proof: Of a fork.
        orphans: Roots that the ledger never had, by who anchored it before or after.
        lines: What was found, and what is needed where the result is ``unknown``.
    """

    result: Result
    lines: tuple[str, ...]
    key: VerifierKey | None = None
    first: SeenHead | None = None
    second: SeenHead | None = None
    proof: ForkProof | None = None
    orphans: tuple[SeenAnchor, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 of one story, 1 a fork or contradiction, 3 not told."""
        return EXIT.get(self.result, 3)


def compare(a: Seen, b: Seen, keys: Sequence[VerifierKey]) -> Comparison:
    """Hold two sources against each other.

    Args:
        keys: To look for behind the heads, in order; the first that signed counts.

    Raises:
        IntegrityError: A source's own tiles or entries do not give its head.
    """
    key = next((k for k in keys for seen in (a, b) if _signed(seen, k)), None)
    if key is None:
        names = ", ".join(sorted({_signers(seen) for seen in (a, b) if seen.heads}))
        line = f"no key is known for these heads, signed by {names}: say it with --ledger-key VKEY"
        return Comparison("unknown", (line,))
    for seen in (a, b):
        if seen.heads and not _signed(seen, key):
            line = f"{seen.name}: signed by {_signers(seen)}, not by {key.label}: another ledger"
            return Comparison("different", (line,), key)
    a, b = of_key(a, key), of_key(b, key)
    problems = (*a.problems, *b.problems)
    proof = find_fork([*a.heads, *b.heads], key)
    if proof is not None:
        sizes = " and ".join(str(head.size) for head in proof.verify())
        line = f"{key.label} signed heads of sizes {sizes} that differ at size {proof.size}"
        return Comparison("fork", (line, *problems), key, _newest(a), _newest(b), proof)
    found = _anchored(a, b) if a.anchors or b.anchors else _tied(a, b, key)
    if a.claim is not None and b.claim is not None:
        claims = tuple(contradictions(a.claim, b.claim))
        if claims:
            found = replace(found, result="contradiction", lines=(*claims, *found.lines))
    return replace(found, key=key, lines=(*found.lines, *problems))


def proof_file(found: Comparison) -> bytes:
    """What shows a fork, as a file: a fork proof; or the head, and the transactions whose roots
    its ledger never had, for whoever has the entries."""
    if found.proof is not None:
        return found.proof.encode()
    note = found.first.note if found.first is not None else ""
    return canonical_json({"v": 1, "head": note, "orphans": as_json(found.orphans)})


def of_key(seen: Seen, key: VerifierKey) -> Seen:
    """The heads that a key signed for its ledger; of the others it is said that they are not."""
    heads, problems = [], list(seen.problems)
    for item in seen.heads:
        try:
            if open_head(item.note, key).origin != key.name:
                raise BadSignatureError(f"is of ledger {item.head.origin!r}")
        except BadSignatureError as error:
            problems.append(f"{seen.name}: head {item.head.size}: {error}")
        else:
            heads.append(item)
    return replace(seen, heads=tuple(heads), problems=tuple(problems))


def find_fork(heads: Sequence[SeenHead], key: VerifierKey) -> ForkProof | None:
    """Two of these heads that do not fit, at the smallest size at which that shows.

    What is known of a head is added to those that are proven to continue it.

    Raises:
        IntegrityError: A source's own tiles or entries do not give its head.
    """
    if len(heads) > MAX_HEADS:
        raise TooLargeError(f"{len(heads)} heads that nothing ties, at most {MAX_HEADS}")
    ordered = sorted(heads, key=lambda item: item.head.size)
    for older, newer in combinations(ordered, 2):
        for size in _shared(older, newer):
            sides = _sides(older, newer, size)
            if sides is None or sides[0].root == sides[1].root:
                continue
            proof = ForkProof(key, size, sides)
            proof.verify()
            return proof
        known, more = newer.pieces, older.pieces
        if not (isinstance(known, KnownPieces) and isinstance(more, KnownPieces)):
            continue
        if continues(newer, older):
            known.update(more)
    return None


def continues(newer: SeenHead, older: SeenHead) -> bool:
    """Whether what is known of a head proves that it extends (or is) another."""
    if newer.head.size < older.head.size:
        return False
    side = _side(newer, older.head.size)
    return side is not None and side.root == older.head.root


def _shared(older: SeenHead, newer: SeenHead) -> Iterator[int]:
    """Sizes at which both may have a root, smallest first; where both are whole, the first at
    which they differ."""
    if not (older.whole and newer.whole):
        if older.whole or newer.whole:
            sizes = (newer if older.whole else older).sizes
        else:
            sizes = older.sizes & newer.sizes
        yield from sorted(s for s in sizes | {older.head.size} if s <= older.head.size)
        return
    low, high = 0, older.head.size
    if root_at(older.pieces, high) == root_at(newer.pieces, high):
        return
    while high - low > 1:
        middle = (low + high) // 2
        same = root_at(older.pieces, middle) == root_at(newer.pieces, middle)
        low, high = (middle, high) if same else (low, middle)
    yield high


def _side(item: SeenHead, size: int) -> ForkSide | None:
    """A head's root at a size with its proof; None where it does not follow."""
    root = root_at(item.pieces, size)
    proof = None if root is None else consistency(item.pieces, size, item.head.size)
    if root is None or proof is None:
        return None
    try:
        verify_consistency(size, root, item.head.size, item.head.root, proof)
    except ProofError as error:
        raise IntegrityError(f"head {item.head.size}: its source does not hold: {error}") from error
    return ForkSide(item.note, root, proof)


def _tied(a: Seen, b: Seen, key: VerifierKey) -> Comparison:
    first, second = _newest(a), _newest(b)
    if first is None or second is None:
        return Comparison("unknown", ("one of the sources has no head that the key signed",))
    older, newer = sorted((first, second), key=lambda item: item.head.size)
    loose = [h for h in (*a.heads, *b.heads) if not continues(newer, h) and not continues(h, newer)]
    if loose:
        both = ((size, _sides(older, newer, size)) for size in _shared(older, newer))
        common = max(
            (s for s, sides in both if sides and sides[0].root == sides[1].root), default=0
        )
        lines = [f"they agree up to size {common}" if common else "no common size is known"]
        need = f"give a source with the entries (a database or tiles) up to size {newer.head.size}"
        for item in loose:
            pair = f"head {item.head.size} and head {newer.head.size}"
            lines.append(f"{pair} are not tied: {need}")
        return Comparison("unknown", tuple(dict.fromkeys(lines)), key, first, second)
    if older.head.size == newer.head.size:
        line = f"size {newer.head.size}, root {newer.head.root.hex()}"
        return Comparison("same", (line,), key, first, second)
    name = a.name if newer is first else b.name
    line = f"size {older.head.size} -> size {newer.head.size}: {name} is the longer"
    return Comparison("consistent", (line,), key, first, second)


def _sides(older: SeenHead, newer: SeenHead, size: int) -> tuple[ForkSide, ForkSide] | None:
    """What both have at a size; None where one does not know."""
    before, after = _side(older, size), _side(newer, size)
    return None if before is None or after is None else (before, after)


def _anchored(a: Seen, b: Seen) -> Comparison:
    """A ledger against roots on networks: each must be the ledger's at some size."""
    ledger, network = (b, a) if a.anchors else (a, b)
    head = _newest(ledger)
    if head is None:
        return Comparison("unknown", ("roots on networks are compared with a ledger's heads",))
    if head.whole and head.head.size > MAX_SIZES:
        raise TooLargeError(f"{ledger.name}: {head.head.size} entries, at most {MAX_SIZES}")
    sizes = set(range(1, head.head.size + 1)) if head.whole else head.sizes
    own = _roots(head.pieces, sorted(sizes))
    orphans: list[SeenAnchor] = []
    later: list[SeenAnchor] = []
    matched = []
    for sender in dict.fromkeys((each.network, each.key) for each in network.anchors):
        sent = [each for each in network.anchors if (each.network, each.key) == sender]
        known = [at for at, each in enumerate(sent) if each.root in own]
        matched += [own[sent[at].root] for at in known]
        if known:
            orphans += [each for each in sent[: known[-1]] if each.root not in own]
            later += sent[known[-1] + 1 :]
    if not matched:
        return Comparison("unknown", ("none of these roots is of this ledger",), first=head)
    line = f"{len(matched)} roots are of this ledger, the newest of size {max(matched)}"
    if orphans and head.whole:
        told = [f"{each.transaction_id} anchors {each.root.hex()}" for each in orphans]
        lines = (line, f"{len(orphans)} by the same sender are of no size of it:", *told)
        return Comparison("fork", lines, first=head, orphans=tuple(orphans))
    if orphans or later:
        count = len(orphans) + len(later)
        need = f"{count} roots by the same sender are of no size that is known here: "
        need += "give a newer database or tiles" if head.whole else "give the database or tiles"
        return Comparison("unknown", (line, need), first=head)
    return Comparison("consistent", (line,), first=head)


def _roots(pieces: Pieces, sizes: Sequence[int]) -> dict[bytes | None, int]:
    """Sizes by the root that a ledger has there."""
    if not isinstance(pieces, KeptTree):
        return {root_at(pieces, size): size for size in sizes}
    parts = (sizes[at : at + PAGE] for at in range(0, len(sizes), PAGE))
    return {
        root: size for part in parts for root, size in zip(pieces.roots(part), part, strict=True)
    }


def _newest(seen: Seen) -> SeenHead | None:
    return max(seen.heads, key=lambda item: item.head.size, default=None)


def _signed(seen: Seen, key: VerifierKey) -> bool:
    return any(
        (line.name, line.key_id) == (key.name, key.key_id)
        for item in seen.heads
        for line in parse_note(item.note).signatures
    )


def _signers(seen: Seen) -> str:
    lines = [line for item in seen.heads for line in parse_note(item.note).signatures]
    return ", ".join(dict.fromkeys(f"{s.name[:60]!a}+{s.key_id.hex()}" for s in lines[:4]))
