"""The state file: which server runs as which process at which address.

The file is JSON, mode 0600, replaced atomically. Addresses outlive a ``down``: the next ``up``
takes the same ports where they are still free, so what was configured with them keeps working.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from provenance import files
from provenance.errors import FormatError, UnknownVersionError
from provenance_devnet.servers import ServerState

_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One server's line; ``started`` tells its process from a later one with the same pid."""

    kind: str
    pid: int
    started: str
    url: str
    detail: Mapping[str, str]

    def state(self, name: str, *, running: bool, problem: str | None = None) -> ServerState:
        """What the outside gets to see of it."""
        return ServerState(name, self.kind, self.pid, self.url, dict(self.detail), running, problem)


class Book:
    """The state file, kept in step with the processes as they come and go; thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._ports: dict[str, list[int]] = {}
        self._load()

    def get(self, name: str) -> Entry | None:
        """What is recorded of a server, whether or not it still runs."""
        return self._entries.get(name)

    def ports(self, name: str) -> Sequence[int]:
        """The ports that a server had last."""
        return tuple(self._ports.get(name, ()))

    def put(self, name: str, entry: Entry, ports: Sequence[int] | None = None) -> None:
        """Records a server."""
        with self._lock:
            self._entries[name] = entry
            if ports is not None:
                self._ports[name] = list(ports)
            self._save()

    def drop(self, name: str) -> None:
        """Forgets a server's process; its ports stay known."""
        with self._lock:
            if self._entries.pop(name, None) is not None:
                self._save()

    def _load(self) -> None:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return
        try:
            found = json.loads(text)
            if found["version"] != _VERSION:
                raise UnknownVersionError(
                    f"{self._path} has version {found['version']!r}, this release reads {_VERSION}"
                )
            for name, fields in found["servers"].items():
                detail = {str(key): str(value) for key, value in fields["detail"].items()}
                self._entries[name] = Entry(
                    str(fields["kind"]),
                    int(fields["pid"]),
                    str(fields["started"]),
                    str(fields["url"]),
                    detail,
                )
            for name, ports in found.get("ports", {}).items():
                self._ports[name] = [int(port) for port in ports]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{self._path} is damaged ({error!r}): end its servers by hand and delete it"
            ) from error

    def _save(self) -> None:
        content = {
            "version": _VERSION,
            "servers": {name: asdict(entry) for name, entry in self._entries.items()},
            "ports": self._ports,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(self._path, json.dumps(content, indent=2).encode())
