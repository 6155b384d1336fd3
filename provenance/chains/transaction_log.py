"""Signed versions that BlockchainManager stored before it sent them.

One JSON object per line, on the disk when :meth:`VersionJournal.add` returns. A script that
dies after sending finds the version here when it is run again, and does not anchor twice.
"""

from __future__ import annotations

from pathlib import Path

from provenance import files
from provenance.errors import StoreUnavailable
from provenance.formats import json_text
from provenance.formats.record import Json, canonical_json
from provenance.ports.values import SignedVersion

JOURNAL_VERSION = 1


class VersionJournal:
    """An append-only file of signed versions; it holds no secret."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, version: SignedVersion, metadata: Json, now: float) -> None:
        """Store a version; it is on the disk when this returns.

        Raises:
            StoreUnavailable: The file cannot be written.
        """
        line = canonical_json(
            {
                "v": JOURNAL_VERSION,
                "network": version.network,
                "payload": version.payload.hex(),
                "transaction_id": version.transaction_id,
                "raw": version.raw.hex(),
                "key": version.key,
                "nonce": version.nonce,
                "fee": str(version.fee),
                "detail": dict(version.detail),
                "metadata": metadata,
                "ts": now,
            }
        )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            files.append_line(self._path, line)
        except OSError as error:
            raise StoreUnavailable(f"cannot write {self._path}: {error.strerror}") from error

    def versions(self, network: str, payload: bytes) -> list[SignedVersion]:
        """What was stored for a payload on a network, oldest first; torn lines are skipped.

        Raises:
            StoreUnavailable: The file cannot be read.
        """
        try:
            lines = files.read_lines(self._path)
        except OSError as error:
            raise StoreUnavailable(f"cannot read {self._path}: {error.strerror}") from error
        found = []
        for line in lines:
            try:
                raw = json_text.loads(line)
                if raw["network"] == network and raw["payload"] == payload.hex():
                    found.append(_version(raw))
            except (ValueError, KeyError, TypeError):
                continue
        return found


def _version(raw: dict[str, Json]) -> SignedVersion:
    nonce, detail = raw["nonce"], raw["detail"]
    if not isinstance(detail, dict):
        raise TypeError("detail")
    return SignedVersion(
        network=str(raw["network"]),
        payload=bytes.fromhex(str(raw["payload"])),
        transaction_id=str(raw["transaction_id"]),
        raw=bytes.fromhex(str(raw["raw"])),
        key=str(raw["key"]),
        nonce=nonce if isinstance(nonce, int) else None,
        fee=int(str(raw["fee"])),
        detail=detail,
    )
