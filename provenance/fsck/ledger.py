"""The ledger: entries without a hole, and heads that are their roots, signed, and one story."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from provenance.errors import BadSignatureError, FormatError, InputError, ProofError
from provenance.formats.checkpoint import open_head, parse_note
from provenance.formats.cosignature import Cosignature
from provenance.formats.merkle import Frontier, leaf_hash, node_hash
from provenance.formats.note import VerifierKey
from provenance.formats.tlog.outcome import Outcome
from provenance.fsck.findings import Finding, FindingKind, holes
from provenance.fsck.rows import Entry, HeadRow, LeafRow, OutcomeRow, SubtreeRow


def check_ledger(
    entries: Sequence[Entry | LeafRow], heads: Sequence[HeadRow], key: VerifierKey | None
) -> Iterator[Finding]:
    """Everything about entries and heads.

    Args:
        entries: By index.
        heads: By size.
        key: The ledger's key; without it no signature is verified.
    """
    leaves, sizes = {entry.index: entry.root for entry in entries}, {head.size for head in heads}
    highest = max([*leaves, *(size - 1 for size in sizes)], default=-1)
    for first, last in holes(leaves, 0, highest + 1):
        name = f"entry {first}" if first == last else f"entries {first}-{last}"
        problem = f"the ledger had {highest + 1} entries, and this is gone"
        yield FindingKind.ENTRY_MISSING(name, problem)
    for index in sorted(leaves):
        if index + 1 not in sizes:
            problem = f"entry {index} is in the ledger, and no head was signed for it"
            yield FindingKind.HEAD_MISSING(f"head {index + 1}", problem)
    yield from _roots(leaves, heads)
    yield from _growth(leaves, heads)
    for head in heads:
        yield from _note(head, key)


def check_levels(
    entries: Sequence[Entry | LeafRow], rows: Sequence[SubtreeRow]
) -> Iterator[Finding]:
    """The kept roots of complete subtrees are those of the entries, up to the first hole."""
    kept = {row.node: row.hash for row in rows}
    level = [leaf_hash(entry.root) for at, entry in enumerate(entries) if entry.index == at]
    whole, height = len(level) == len(entries), 0
    while len(level) > 1:
        height += 1
        level = [node_hash(*level[at : at + 2]) for at in range(0, len(level) - 1, 2)]
        for number, given in enumerate(level):
            if (found := kept.pop((2 * number + 1 << height) - 1, None)) != given:
                problem = f"the entries give {given.hex()}, kept is {found and found.hex()}"
                yield FindingKind.LEDGER_LEVEL(f"subtree {height}/{number}", problem)
    for node in kept if whole else ():
        problem = "the ledger has no entries for it"
        yield FindingKind.LEDGER_LEVEL(f"node {node}", problem)


def check_outcomes(
    entries: Sequence[Entry], outcomes: Sequence[OutcomeRow], key: VerifierKey | None
) -> Iterator[Finding]:
    """Each entry that is no seal is the SHA-256 of an outcome's record: of its run, about one of
    its seals, and numbered by the run's outcomes."""
    roots: dict[UUID, set[bytes]] = {}
    for entry in entries:
        roots.setdefault(entry.run, set()).add(entry.root)
    numbers: dict[UUID, int] = {}
    for row in outcomes:
        name, number = f"entry {row.index}", numbers.get(row.run, 0) + 1
        numbers[row.run] = number
        try:
            record = Outcome.decode(row.document or b"", f"{name}: its record")
            record.verify(row.index, row.root)
        except (FormatError, ProofError) as error:
            yield FindingKind.OUTCOME(name, str(error))
            continue
        if (record.run, record.number, record.number) != (row.run, row.epoch, number):
            problem = f"states run {record.run} and number {record.number}"
            yield FindingKind.OUTCOME(name, f"{problem}, expected {row.run} and {number}")
        if record.root not in roots.get(row.run, ()):
            yield FindingKind.OUTCOME(name, f"root {record.root.hex()} is of no seal of its run")
        if key is not None and record.ledger != key.vkey:
            yield FindingKind.OUTCOME(name, f"is of ledger {record.ledger}, not {key.vkey}")


def same_head(note: str, heads: Mapping[int, HeadRow], key: VerifierKey | None) -> str | None:
    """Why a signed head from elsewhere is not the ledger's at that size; None where it is. Raises
    FormatError, BadSignatureError: it is no signed head of this key."""
    head = open_head(note, key) if key else parse_note(note).head
    known = heads.get(head.size)
    if known is None:
        return f"the ledger has no head at size {head.size}"
    if known.root != head.root:
        return (
            f"there are two signed heads at size {head.size}: with root {known.root.hex()} "
            f"and with root {head.root.hex()}"
        )
    return None


def _roots(leaves: Mapping[int, bytes], heads: Sequence[HeadRow]) -> Iterator[Finding]:
    """A head's root is the RFC 6962 root of the entries below it."""
    whole = Frontier.empty()
    for head in heads:
        while whole.size < head.size and whole.size in leaves:
            whole = whole.append(leaves[whole.size])
        if whole.size < head.size:
            return  # an entry is missing, which is a finding of its own
        if (root := whole.root()) != head.root:
            problem = f"the entries give {root.hex()}, the head has {head.root.hex()}"
            yield FindingKind.HEAD_ROOT(head.name, problem)


def _growth(leaves: Mapping[int, bytes], heads: Sequence[HeadRow]) -> Iterator[Finding]:
    """Each head follows from what the one before it kept, and the entries in between.

    Unlike :func:`_roots` this does not begin at the first entry: it tells *where* the story
    was changed.
    """
    before: Frontier | None = Frontier.empty()
    for head in heads:
        if before is not None:
            whole = next(holes(leaves, before.size, head.size), None) is None
            between = [leaves[index] for index in range(before.size, head.size)] if whole else []
            if whole and before.extend(between).root() != head.root:
                problem = f"does not extend the head at size {before.size}"
                yield FindingKind.HEAD_INCONSISTENT(head.name, problem)
        try:
            before = Frontier.from_bytes(head.frontier)
            size, root = before.size, before.root()
            problem = f"the frontier is of size {size} and root {root.hex()}"
            if (size, root) == (head.size, head.root):
                continue
        except (FormatError, ValueError) as error:
            problem = str(error)
        yield FindingKind.HEAD_FRONTIER(head.name, problem)
        before = None


def _note(head: HeadRow, key: VerifierKey | None) -> Iterator[Finding]:
    try:
        read = parse_note(head.note)
        if key is not None:
            open_head(head.note, key)
    except BadSignatureError as error:
        yield FindingKind.HEAD_SIGNATURE(head.name, str(error))
    except (FormatError, InputError) as error:
        yield FindingKind.HEAD_NOTE(head.name, str(error))
        return
    stated, cosigned = read.head, any(map(Cosignature.of, read.signatures))
    if head.cosigned != cosigned:
        problem = f"heads.cosigned is {head.cosigned}, the note gives {cosigned}"
        yield FindingKind.KEPT_STATE(head.name, problem)
    if (stated.size, stated.root) != (head.size, head.root):
        problem = f"the signed note states size {stated.size} and root {stated.root.hex()}"
        yield FindingKind.HEAD_NOTE(head.name, problem)
    if key is not None and stated.origin != key.name:
        yield FindingKind.HEAD_NOTE(head.name, f"is of ledger {stated.origin!r}, not {key.name!r}")
