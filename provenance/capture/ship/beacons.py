"""Recent blocks, brought by the shipper to the trainer: a small file of the spool.

Life of a beacon: a worker signs it with the ledger's key and publishes it; the shipper, which has a
connection anyway, asks for it now and then, believes it as it believes acknowledgements, and
replaces the file; ``tracker.fresh_seed()`` reads the file and opens no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from provenance import files
from provenance.errors import FormatError, ProvenanceError
from provenance.formats.fields import Fields
from provenance.formats.json_text import canonical_json
from provenance.log import get_logger
from provenance.ports.transport import EventTransport
from provenance.proofs.beacon import MAX_BEACON_BYTES, NETWORKS, Beacon, open_beacon, read_beacons

BEACON_FILE: Final = "beacons.json"
ASK_S: Final = 5.0
"""Between two questions of a shipper."""
VERSION: Final = 1
_MAX_BYTES: Final = 2 * MAX_BEACON_BYTES

_log = get_logger("provenance.shipper")


def keep_beacons(spool_dir: Path, transport: EventTransport, ledger_keys: Sequence[bytes]) -> None:
    """Ask for the newest blocks and keep them, where any are new. Nothing here may hold up the
    events: what goes wrong is a line of the log."""
    try:
        found = [
            beacon
            for network in NETWORKS
            if (data := transport.beacon(network)) is not None
            and (beacon := _believed(data, network, ledger_keys)) is not None
        ]
        if found and found != load_beacons(spool_dir):
            document = {"v": VERSION, "blocks": [each.as_json() for each in found]}
            files.replace(spool_dir / BEACON_FILE, canonical_json(document))
    except (ProvenanceError, OSError) as error:
        _tell_once(str(error))


def load_beacons(spool_dir: Path) -> list[Beacon]:
    """The blocks in the file, by the names of their networks; none where there is none, or it
    cannot be used: never raises."""
    try:
        data = files.read_regular(spool_dir / BEACON_FILE, _MAX_BYTES + 1)
        top = Fields.parse_canonical(data, BEACON_FILE, VERSION, limit=_MAX_BYTES)
        return list(read_beacons(top.only("v", "blocks"), "blocks"))
    except (FormatError, OSError):
        return []


def _believed(data: bytes, network: str, ledger_keys: Sequence[bytes]) -> Beacon | None:
    problem = "no ledger's key is known here, so no block is believed"
    for key in ledger_keys:
        try:
            beacon = open_beacon(data, key)
        except ProvenanceError as error:
            problem = str(error)
            continue
        if beacon.network == network:
            return beacon
        problem = f"beacon: found {beacon.network}, expected {network}"
    _tell_once(problem)
    return None


@lru_cache(64)
def _tell_once(reason: str) -> None:
    """It is asked every few seconds, and the answer may stay the same for days."""
    _log.info("no recent block", reason=reason)
