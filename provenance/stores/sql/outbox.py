"""The outbox: anchors, their signed versions, the networks' identities and pauses, and the reports
that are due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, func, insert, or_, select, update

from provenance.errors import EquivocationError, IntegrityError
from provenance.ports.values import AnchorRow, AnchorState, NetworkRow, SignedVersion, VersionRow
from provenance.stores.sql.schema import (
    anchor_versions,
    anchors,
    approvals,
    heads,
    ledger_entries,
    networks,
    nonces,
    signing_requests,
)
from provenance.stores.sql.session import Session, columns_of, fields_of, values_in

_ANCHORS: Final = values_in(AnchorRow, anchors)
_FIXED: Final = ("id", "network", "size", "root", "created_at")
"""Of an anchor; all else :meth:`OutboxPart.save_anchor` writes."""
_NETWORKS: Final = values_in(NetworkRow, networks)
_VERSIONS: Final = select(
    *(anchor_versions.c[name] for name in ("id", "anchor_id", "created_at", "sent_at")),
    *columns_of(SignedVersion, anchor_versions),
)


class OutboxPart(Session):
    """Rows move as ``provenance.anchor.outbox`` says; here they are only kept."""

    def add_anchor(self, network: str, size: int, now: float) -> AnchorRow:
        existing = self._one(
            AnchorRow, _ANCHORS.where(anchors.c.network == network, anchors.c.size == size)
        )
        if existing is not None:
            return existing
        root = self._read(select(heads.c.root).where(heads.c.size == size)).scalar_one_or_none()
        if root is None:
            raise IntegrityError(f"no head at size {size} to anchor on {network}")
        added = self._write(
            insert(anchors)
            .values(
                network=network,
                size=size,
                root=root,
                state=AnchorState.DUE,
                attempts=0,
                next_attempt_at=now,
                depth=0,
                created_at=now,
                updated_at=now,
            )
            .returning(*columns_of(AnchorRow, anchors))
        )
        return AnchorRow(*added.one())

    def anchor(self, anchor_id: int) -> AnchorRow | None:
        return self._one(AnchorRow, _ANCHORS.where(anchors.c.id == anchor_id))

    def anchors(
        self, network: str | None = None, states: Iterable[AnchorState] | None = None
    ) -> Sequence[AnchorRow]:
        query = _ANCHORS.order_by(anchors.c.network, anchors.c.size)
        if network is not None:
            query = query.where(anchors.c.network == network)
        if states is not None:
            query = query.where(anchors.c.state.in_(list(states)))
        return self._all(AnchorRow, query)

    def anchored_networks(self) -> Sequence[str]:
        names: list[str] = []
        query = select(anchors.c.network).order_by(anchors.c.network).limit(1)
        while True:
            later = query.where(anchors.c.network > names[-1]) if names else query
            name = self._read(later).scalar()
            if name is None:
                return names
            names.append(name)

    def reach(self, network: str, states: Iterable[AnchorState], below: int | None = None) -> int:
        found = [0]
        for state in states:
            query = select(func.max(anchors.c.size))
            query = query.where(anchors.c.network == network, anchors.c.state == state)
            if below is not None:
                query = query.where(anchors.c.size < below)
            found.append(self._read(query).scalar() or 0)
        return max(found)

    def covering(self, network: str, index: int) -> AnchorRow | None:
        query = _ANCHORS.where(anchors.c.network == network, anchors.c.size > index)
        query = query.order_by(anchors.c.size).limit(1)
        gone = (AnchorState.REPLACED, AnchorState.FAILED)
        live = self._one(AnchorRow, query.where(anchors.c.state.not_in(gone)))
        failed = query.where(anchors.c.state == AnchorState.FAILED)
        return live or self._one(AnchorRow, failed)

    def coverings(
        self, network: str, indexes: Iterable[int]
    ) -> Mapping[int, tuple[AnchorRow, str | None]]:
        gone = (AnchorState.REPLACED, AnchorState.FAILED)
        entry, each = ledger_entries.c.index, anchors.alias()
        smallest = select(each.c.id).where(each.c.network == network, each.c.size > entry)
        smallest = smallest.order_by(each.c.size).limit(1)
        live = smallest.where(each.c.state.not_in(gone)).scalar_subquery()
        failed = smallest.where(each.c.state == AnchorState.FAILED).scalar_subquery()
        version = anchor_versions.c
        newest = select(func.max(version.id)).where(version.anchor_id == anchors.c.id)
        counts = func.coalesce(anchors.c.version_id, newest.correlate(anchors).scalar_subquery())
        query = select(entry, version.transaction_id, *columns_of(AnchorRow, anchors))
        query = query.where(entry.in_(list(indexes))).select_from(
            ledger_entries.join(anchors, anchors.c.id == func.coalesce(live, failed))
            .outerjoin(anchor_versions, version.id == counts)
        )  # fmt: skip
        return {index: (AnchorRow(*row), id) for index, id, *row in self._read(query)}

    def anchor_counts(self, network: str) -> Mapping[AnchorState, int]:
        query = select(anchors.c.state, func.count().label("number"))
        query = query.where(anchors.c.network == network).group_by(anchors.c.state)
        return {row.state: row.number for row in self._read(query)}

    def claim(
        self,
        network: str,
        states: Iterable[AnchorState],
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
    ) -> Sequence[AnchorRow]:
        rows = self._all(
            AnchorRow,
            _ANCHORS.where(
                anchors.c.network == network,
                *_due(states, now),
                or_(_free(now), anchors.c.lease_owner == owner),
            )
            .order_by(anchors.c.next_attempt_at, anchors.c.id)
            .limit(limit),
        )
        lease: dict[str, Any] = {"lease_owner": owner, "lease_until": now + lease_s}
        if rows:
            ids = [row.id for row in rows]
            self._write(update(anchors).where(anchors.c.id.in_(ids)).values(lease))
        return [replace(row, **lease) for row in rows]

    def due_networks(self, states: Iterable[AnchorState], now: float) -> frozenset[str]:
        due = select(anchors.c.id).where(*_due(states, now), _free(now)).limit(1)
        return frozenset(
            network
            for network in self.anchored_networks()
            if self._read(due.where(anchors.c.network == network)).first() is not None
        )

    def save_anchor(self, *rows: AnchorRow) -> None:
        if not rows:
            return
        names = [field for field in fields_of(rows[0]) if field not in _FIXED]
        change = update(anchors).where(anchors.c.id == bindparam("of"))
        change = change.values({name: bindparam(f"new_{name}") for name in names})
        new = [{f"new_{name}": getattr(row, name) for name in names} for row in rows]
        for row, values in zip(rows, new, strict=True):
            values["of"] = row.id
        saved = self._write(change, new)
        if saved.rowcount != len(rows):
            raise IntegrityError(f"no anchor {rows[0].id} to save")

    def add_version(self, anchor_id: int, version: SignedVersion, now: float) -> VersionRow:
        existing = self._one(
            _version,
            _VERSIONS.where(
                anchor_versions.c.network == version.network,
                anchor_versions.c.transaction_id == version.transaction_id,
            ),
        )
        if existing is not None:
            if (existing.anchor_id, existing.version.raw) != (anchor_id, version.raw):
                raise EquivocationError(
                    f"{version.network} transaction {version.transaction_id} is already "
                    f"stored for anchor {existing.anchor_id}"
                )
            return existing
        if version.nonce is not None:
            self._take_nonce(anchor_id, version, version.nonce)
        added = self._write(
            insert(anchor_versions)
            .values(fields_of(version) | {"anchor_id": anchor_id, "created_at": now})
            .returning(anchor_versions.c.id)
        )
        return VersionRow(added.scalar_one(), anchor_id, version, now, None)

    def _take_nonce(self, anchor_id: int, version: SignedVersion, nonce: int) -> None:
        key = {"network": version.network, "key": version.key, "nonce": nonce}
        holder = self._read(
            select(nonces.c.anchor_id).where(*(nonces.c[name] == key[name] for name in key))
        ).scalar_one_or_none()
        if holder is None:
            self._write(insert(nonces).values(anchor_id=anchor_id, **key))
        elif holder != anchor_id:
            raise EquivocationError(
                f"{version.network} nonce {nonce} of {version.key} belongs to anchor {holder}"
            )

    def mark_sent(self, version_id: int, now: float) -> None:
        marked = self._write(
            update(anchor_versions)
            .where(anchor_versions.c.id == version_id)
            .values(sent_at=func.coalesce(anchor_versions.c.sent_at, now))
        )
        if not marked.rowcount:
            raise IntegrityError(f"no version {version_id} to mark as sent")

    def versions(self, anchor_id: int) -> Sequence[VersionRow]:
        return self._all(
            _version,
            _VERSIONS.where(anchor_versions.c.anchor_id == anchor_id).order_by(
                anchor_versions.c.id
            ),
        )

    def highest_nonce(self, network: str, key: str) -> int | None:
        highest = select(func.max(nonces.c.nonce))
        highest = highest.where(nonces.c.network == network, nonces.c.key == key)
        nonce: int | None = self._read(highest).scalar()
        return nonce

    def approval(self, anchor_id: int) -> bytes | None:
        query = select(approvals.c.envelope).where(approvals.c.anchor_id == anchor_id)
        envelope: bytes | None = self._read(query).scalar_one_or_none()
        return envelope

    def approval_below(self, network: str, size: int) -> tuple[AnchorRow, bytes] | None:
        query = select(approvals.c.envelope, *columns_of(AnchorRow, anchors))
        query = query.join(anchors, anchors.c.id == approvals.c.anchor_id)
        query = query.where(anchors.c.network == network, anchors.c.size < size)
        found = self._read(query.order_by(anchors.c.size.desc()).limit(1)).one_or_none()
        return None if found is None else (AnchorRow(*found[1:]), found[0])

    def save_approval(self, anchor_id: int, envelope: bytes) -> None:
        self._replace(approvals, [{"anchor_id": anchor_id, "envelope": envelope}])

    def signing_request(self, network: str, root: bytes) -> bytes | None:
        table = signing_requests.c
        query = select(table.document).where(table.network == network, table.root == root)
        document: bytes | None = self._read(query).scalar_one_or_none()
        return document

    def save_signing_request(self, network: str, root: bytes, document: bytes) -> None:
        row = {"network": network, "root": root, "document": document}
        self._replace(signing_requests, [row])

    def network(self, network: str) -> NetworkRow | None:
        return self._one(NetworkRow, _NETWORKS.where(networks.c.network == network))

    def save_network(self, row: NetworkRow) -> None:
        self._replace(networks, [fields_of(row)])


def _due(states: Iterable[AnchorState], now: float) -> tuple[ColumnElement[bool], ...]:
    return (anchors.c.state.in_(list(states)), anchors.c.next_attempt_at <= now)


def _free(now: float) -> ColumnElement[bool]:
    return or_(anchors.c.lease_until.is_(None), anchors.c.lease_until <= now)


def _version(
    row_id: int, anchor_id: int, created_at: float, sent_at: float | None, *version: Any
) -> VersionRow:
    return VersionRow(row_id, anchor_id, SignedVersion(*version), created_at, sent_at)
