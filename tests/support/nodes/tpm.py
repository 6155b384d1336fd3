"""A software TPM of one's own: swtpm, a folder of state and sockets, an attestation key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from provenance.capture.ship.host import collect
from provenance.demo.beyond.host import ask_tpm, software_tpm
from provenance.errors import ServerMissingError
from provenance.proofs.host.evidence import Quote
from provenance.settings.beyond.host import HostSettings, TpmSettings
from tests.conftest import missing


class Tpm(NamedTuple):
    """A running one."""

    folder: Path
    settings: TpmSettings

    def extend(self, pcr: int, digest: bytes) -> None:
        ask_tpm(self.settings, self.folder, "tpm2_pcrextend", f"{pcr}:sha256={digest.hex()}")

    def quote(self, qualifying: bytes) -> Quote:
        found = collect(HostSettings(tpm=self.settings), "start", qualifying)
        assert found.quote is not None, found.problems
        return found.quote


@contextmanager
def started(folder: Path, scheme: str = "ecc") -> Iterator[Tpm]:
    """A TPM as :func:`software_tpm` starts it."""
    try:
        with software_tpm(folder, scheme) as settings:
            yield Tpm(folder, settings)
    except ServerMissingError as error:
        missing(str(error))
