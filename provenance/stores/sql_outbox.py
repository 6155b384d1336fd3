"""The outbox: anchors, their signed versions, and what is remembered of networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, or_, select, update

from provenance.errors import EquivocationError, IntegrityError
from provenance.ports.values import AnchorRow, AnchorState, NetworkRow, SignedVersion, VersionRow
from provenance.stores.schema import anchor_versions, anchors, heads, networks, nonces
from provenance.stores.sql_session import Session


class OutboxPart(Session):
    """Rows move as ``provenance.anchor.outbox`` says; here they are only kept."""

    def add_anchor(self, network: str, size: int, now: float) -> AnchorRow:
        """Raises IntegrityError where the ledger has no head at ``size``."""
        there = self._read(
            select(anchors).where(anchors.c.network == network, anchors.c.size == size)
        ).one_or_none()
        if there is not None:
            return _anchor(there)
        root = self._read(select(heads.c.root).where(heads.c.size == size)).scalar_one_or_none()
        if root is None:
            raise IntegrityError(f"no head at size {size} to anchor on {network}")
        added = self._write(
            insert(anchors)
            .values(
                network=network,
                size=size,
                root=root,
                state=AnchorState.DUE.value,
                attempts=0,
                next_attempt_at=now,
                depth=0,
                created_at=now,
                updated_at=now,
            )
            .returning(anchors)
        )
        return _anchor(added.one())

    def anchor(self, anchor_id: int) -> AnchorRow | None:
        row = self._read(select(anchors).where(anchors.c.id == anchor_id)).one_or_none()
        return None if row is None else _anchor(row)

    def anchors(
        self, network: str | None = None, states: Iterable[AnchorState] | None = None
    ) -> Sequence[AnchorRow]:
        query = select(anchors).order_by(anchors.c.network, anchors.c.size)
        if network is not None:
            query = query.where(anchors.c.network == network)
        if states is not None:
            query = query.where(anchors.c.state.in_([state.value for state in states]))
        return [_anchor(row) for row in self._read(query)]

    def claim(
        self,
        network: str,
        states: Iterable[AnchorState],
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
    ) -> Sequence[AnchorRow]:
        """Those that have waited longest first; a lease of the same owner is renewed."""
        rows = self._read(
            select(anchors)
            .where(
                anchors.c.network == network,
                *_due(states, now),
                or_(_free(now), anchors.c.lease_owner == owner),
            )
            .order_by(anchors.c.next_attempt_at, anchors.c.id)
            .limit(limit)
        ).all()
        lease: dict[str, Any] = {"lease_owner": owner, "lease_until": now + lease_s}
        if rows:
            ids = [row.id for row in rows]
            self._write(update(anchors).where(anchors.c.id.in_(ids)).values(**lease))
        return [replace(_anchor(row), **lease) for row in rows]

    def due_networks(self, states: Iterable[AnchorState], now: float) -> frozenset[str]:
        rows = self._read(
            select(anchors.c.network).distinct().where(*_due(states, now), _free(now))
        )
        return frozenset(rows.scalars())

    def save_anchor(self, row: AnchorRow) -> None:
        """Raises IntegrityError where there is no such row."""
        saved = self._write(
            update(anchors)
            .where(anchors.c.id == row.id)
            .values(
                state=row.state.value,
                attempts=row.attempts,
                next_attempt_at=row.next_attempt_at,
                lease_owner=row.lease_owner,
                lease_until=row.lease_until,
                reason=row.reason,
                version_id=row.version_id,
                height=row.height,
                depth=row.depth,
                block_time=row.block_time,
                updated_at=row.updated_at,
            )
        )
        if not saved.rowcount:
            raise IntegrityError(f"no anchor {row.id} to save")

    def add_version(self, anchor_id: int, version: SignedVersion, now: float) -> VersionRow:
        """The row that is there is returned where the same bytes were stored before.

        Raises:
            EquivocationError: The transaction id is known with other bytes or for another
                anchor, or another anchor holds the nonce.
            IntegrityError: There is no such anchor on that network.
        """
        there = self._read(
            select(anchor_versions).where(
                anchor_versions.c.network == version.network,
                anchor_versions.c.transaction_id == version.transaction_id,
            )
        ).one_or_none()
        if there is not None:
            if (there.anchor_id, there.raw) != (anchor_id, version.raw):
                raise EquivocationError(
                    f"{version.network} transaction {version.transaction_id} is already "
                    f"stored for anchor {there.anchor_id}"
                )
            return _version(there)
        if version.nonce is not None:
            self._hold_nonce(anchor_id, version, version.nonce)
        added = self._write(
            insert(anchor_versions)
            .values(
                anchor_id=anchor_id,
                network=version.network,
                payload=version.payload,
                transaction_id=version.transaction_id,
                raw=version.raw,
                key=version.key,
                nonce=version.nonce,
                fee=version.fee,
                detail=version.detail,
                created_at=now,
            )
            .returning(anchor_versions.c.id)
        )
        return VersionRow(added.scalar_one(), anchor_id, version, now, None)

    def _hold_nonce(self, anchor_id: int, version: SignedVersion, nonce: int) -> None:
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
        """The first time stands. Raises IntegrityError where there is no such version."""
        marked = self._write(
            update(anchor_versions)
            .where(anchor_versions.c.id == version_id)
            .values(sent_at=func.coalesce(anchor_versions.c.sent_at, now))
        )
        if not marked.rowcount:
            raise IntegrityError(f"no version {version_id} to mark as sent")

    def versions(self, anchor_id: int) -> Sequence[VersionRow]:
        rows = self._read(
            select(anchor_versions)
            .where(anchor_versions.c.anchor_id == anchor_id)
            .order_by(anchor_versions.c.id)
        )
        return [_version(row) for row in rows]

    def highest_nonce(self, network: str, key: str) -> int | None:
        found = self._read(
            select(func.max(nonces.c.nonce)).where(nonces.c.network == network, nonces.c.key == key)
        ).scalar()
        return None if found is None else int(found)

    def network(self, network: str) -> NetworkRow | None:
        row = self._read(select(networks).where(networks.c.network == network)).one_or_none()
        if row is None:
            return None
        return NetworkRow(row.network, row.identity, row.paused, row.checked_at)

    def save_network(self, row: NetworkRow) -> None:
        statement = self._upsert(networks).values(
            network=row.network,
            identity=row.identity,
            paused=row.paused,
            checked_at=row.checked_at,
        )
        self._write(
            statement.on_conflict_do_update(
                index_elements=[networks.c.network],
                set_={
                    "identity": statement.excluded.identity,
                    "paused": statement.excluded.paused,
                    "checked_at": statement.excluded.checked_at,
                },
            )
        )


def _due(states: Iterable[AnchorState], now: float) -> tuple[ColumnElement[bool], ...]:
    wanted = [state.value for state in states]
    return (anchors.c.state.in_(wanted), anchors.c.next_attempt_at <= now)


def _free(now: float) -> ColumnElement[bool]:
    return or_(anchors.c.lease_until.is_(None), anchors.c.lease_until <= now)


def _anchor(row: Row[Any]) -> AnchorRow:
    return AnchorRow(
        id=row.id,
        network=row.network,
        size=row.size,
        root=row.root,
        state=AnchorState(row.state),
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        lease_owner=row.lease_owner,
        lease_until=row.lease_until,
        reason=row.reason,
        version_id=row.version_id,
        height=row.height,
        depth=row.depth,
        block_time=row.block_time,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _version(row: Row[Any]) -> VersionRow:
    version = SignedVersion(
        network=row.network,
        payload=row.payload,
        transaction_id=row.transaction_id,
        raw=row.raw,
        key=row.key,
        nonce=row.nonce,
        fee=row.fee,
        detail=row.detail,
    )
    return VersionRow(row.id, row.anchor_id, version, row.created_at, row.sent_at)
