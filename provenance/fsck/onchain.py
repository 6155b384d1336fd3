"""The outbox against what is really on a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from provenance.fsck.findings import Finding, FindingKind
from provenance.fsck.outbox import ON_CHAIN, PAYLOAD_TAG, UNSIGNED, OutboxFacts, unused_nonces
from provenance.fsck.rows import Anchor, NonceRow

PINNED: Final = ("chain_id", "chain", "genesis", "public_key")
"""Fields of an identity that never change on one network."""


@dataclass(frozen=True, slots=True)
class ChainTransaction:
    """One transaction, block or line, as the network has it.

    Attributes:
        payload: The 36 bytes that it puts on the network, read from there; None for none.
        final: As deep as the configuration asks for.
        ours: By our sender, wallet or key.
        creates: It deploys a contract.
    """

    id: str
    place: Literal["mined", "pending", "failed"]
    payload: bytes | None
    height: int | None = None
    depth: int = 0
    final: bool = False
    ours: bool = True
    key: str = ""
    nonce: int | None = None
    creates: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What the database knows of a network, so that a reader can look for it and for more.

    Attributes:
        ids: Transactions that rows name.
        payloads: Of every head, wherever it was to be anchored.
        keys: Senders that signed what is stored.
        since: Height to search from; None for the first of the sender or wallet.
    """

    ids: frozenset[str]
    payloads: frozenset[bytes]
    keys: frozenset[str]
    since: int | None = None


@dataclass(frozen=True, slots=True)
class ChainView:
    """What a reader found.

    Attributes:
        transactions: Those that were asked for and exist, and all of ours that were found.
        next_nonce: Per sender (lower case), how many nonces its mined transactions spent.
        unsure: Ids of which the node cannot say whether they exist.
        exclusive: Whatever is there under our key is this ledger's.
        notes: What could not be looked at.
    """

    identity: Mapping[str, Any]
    transactions: Sequence[ChainTransaction]
    next_nonce: Mapping[str, int] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    exclusive: bool = False
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


class ChainReader(Protocol):
    """One network as the checker reads it.

    Raises NetworkUnavailable where it cannot be asked, LyingNodeError where an answer
    contradicts itself.
    """

    @property
    def name(self) -> str:
        """The network's."""

    def read(self, question: Question) -> ChainView:
        """Everything of ours that the network has."""


def question_for(network: str, facts: OutboxFacts, since: int | None) -> Question:
    """What to ask a network's reader."""
    rows = [version for version in facts.versions if version.network == network]
    return Question(
        ids=frozenset(row.transaction_id for row in rows),
        payloads=frozenset(PAYLOAD_TAG + head.root for head in facts.heads.values()),
        keys=frozenset(row.key for row in rows if row.key),
        since=since,
    )


def check_network(
    network: str, view: ChainView, facts: OutboxFacts, elsewhere: Collection[str], since: int | None
) -> Iterator[Finding]:
    """A network against the rows about it.

    Args:
        elsewhere: Transactions that were made on purpose outside the outbox.
        since: Height from which roots that no head has are ours to explain; None for the
            sender's first.
    """
    for known in facts.networks:
        stored = known.identity if known.network == network else {}
        both = [name for name in PINNED if name in stored and name in view.identity]
        wrong = [name for name in both if stored[name] != view.identity[name]]
        for name in wrong:
            was = f"and was {stored[name]} when heads were anchored"
            yield FindingKind.CHAIN_IDENTITY(network, f"{name} is {view.identity[name]}, {was}")
        if wrong:
            return
    yield from view.findings
    versions = [version for version in facts.versions if version.network == network]
    for anchor in facts.anchors:
        if anchor.network == network:
            own = {version.transaction_id for version in versions if version.anchor_id == anchor.id}
            yield from _anchor(anchor, own, view)
    names = {head.root: f"{network} head {size}" for size, head in facts.heads.items()}
    carriers: dict[bytes, list[ChainTransaction]] = {}
    for transaction in view.transactions:
        payload = transaction.payload or b""
        is_anchor = len(payload) == 36 and payload.startswith(PAYLOAD_TAG)
        if is_anchor and transaction.ours and transaction.place == "mined":
            carriers.setdefault(payload, []).append(transaction)
    for payload, own_carriers in carriers.items():
        root, ids = payload[len(PAYLOAD_TAG) :], sorted(each.id for each in own_carriers)
        if len(ids) > 1 and (root in names or not set(ids) <= set(elsewhere)):
            subject = names.get(root, f"{network} root {root.hex()}")
            problem = f"{len(ids)} times on the network: {', '.join(ids)}"
            yield FindingKind.CHAIN_DOUBLED(subject, problem)
    known_ids = {version.transaction_id for version in versions}
    yield from _orphans(network, view, carriers, names, known_ids, elsewhere, since)
    yield from check_nonces(
        [row for row in facts.nonces if row.network == network], view, elsewhere, since
    )


def check_nonces(
    nonces: Sequence[NonceRow],
    view: ChainView | None,
    elsewhere: Collection[str] = (),
    since: int | None = None,
) -> Iterator[Finding]:
    """Nonces that no row holds, below ones that rows hold; ``view`` None: nobody was asked. Those
    that were spent before the height ``since`` are not ours to explain."""
    for network, key, nonce in unused_nonces(nonces):
        spent = None if view is None else view.next_nonce.get(key.lower())
        if spent is None or view is None:
            problem = "no row holds it, and later ones are held"
        elif nonce >= spent:
            problem = "nothing has spent it: what was signed with later ones cannot be mined"
        else:
            by = [t for t in view.transactions if t.nonce == nonce and t.key.lower() == key.lower()]
            if any(t.creates or t.id in elsewhere for t in by):
                continue
            if since is not None and not by:
                continue
            what = by[0].id if by else "a transaction before those that were searched"
            problem = f"no row holds it, and it was spent by {what}: the key is used elsewhere, "
            problem += "or was by this deployment before a restore"
        yield FindingKind.NONCE_GAP(f"{network} {key} nonce {nonce}", problem)


def _anchor(anchor: Anchor, ids: Set[str], view: ChainView) -> Iterator[Finding]:
    found = [t for t in view.transactions if t.id in ids]
    mined = [t for t in found if t.place == "mined"]
    expected = PAYLOAD_TAG + anchor.root
    right = [t for t in mined if t.payload == expected]
    for transaction in mined:
        if transaction.payload != expected:
            carried = transaction.payload.hex() if transaction.payload else "no anchor"
            problem = f"{transaction.id} carries {carried}, expected {expected.hex()}"
            yield FindingKind.CHAIN_ROOT(anchor.name, problem)
    if anchor.state in (*UNSIGNED, "replaced", "failed") and right:
        problem = f"is {anchor.state}, and {right[0].id} is on the network"
        yield FindingKind.ANCHOR_STATE(anchor.name, problem)
    if anchor.state not in ON_CHAIN:
        return
    if not mined and not ids & view.unsure:
        where = ", ".join(f"{t.id} {t.place}" for t in found) or f"none of {len(ids)} versions"
        problem = f"is {anchor.state}, and not in a block: {where}"
        yield FindingKind.CHAIN_MISSING(anchor.name, problem)
    if anchor.state == "final" and right and not any(t.final for t in right):
        problem = f"is final, and {right[0].id} is {right[0].depth} deep"
        yield FindingKind.CHAIN_SHALLOW(anchor.name, problem)


def _orphans(
    network: str,
    view: ChainView,
    carriers: Mapping[bytes, Iterable[ChainTransaction]],
    names: Mapping[bytes, str],
    ids: Collection[str],
    elsewhere: Collection[str],
    since: int | None,
) -> Iterator[Finding]:
    """Anchors of ours that no row knows; in one line those before all that rows know."""
    known = [t for t in view.transactions if t.id in ids]
    told = {t.payload for t in known}
    first = min((t.height for t in known if t.height is not None), default=0)
    older: list[str] = []
    for payload, transaction in ((payload, t) for payload, own in carriers.items() for t in own):
        if payload in told or transaction.id in elsewhere:
            continue
        name, height = names.get(payload[len(PAYLOAD_TAG) :]), transaction.height
        if name is None and not view.exclusive:
            if since is not None and (height is None or height < since):
                continue
            if height is not None and height < first:
                older.append(transaction.id)
                continue
        what = f"anchors {name}; no row knows it"
        if name is None:
            what = f"carries {payload.hex()}, the root of no head: another deployment uses the "
            what += "key, or this database is older than what was signed (provenance ledger head)"
        yield FindingKind.CHAIN_ORPHAN(f"{network} {transaction.id}", what)
    if older:
        more = f" and {len(older) - 1} more" if len(older) > 1 else ""
        yield FindingKind.CHAIN_ORPHAN(
            f"{network} {older[0]}{more}",
            f"carry roots of no head, before block {first}, where this ledger's own anchors begin: "
            "it was begun anew, or its key served another ledger before. If the key did, search "
            f"from there: --since-block {network}={first}",
        )
