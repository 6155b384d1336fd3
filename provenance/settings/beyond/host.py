"""Settings of what attests the host that a run's process runs on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, convert, structs, to_builtins

from provenance.settings.section import Section, Text

KeyDigest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="64 lower-case hex digits")]


class TpmSettings(Section, frozen=True):
    """A TPM 2.0 and its attestation key."""

    ak: Annotated[
        str,
        Meta(pattern=r"^[^-\s]", description="a handle such as 0x81010002, or a context's file"),
    ]
    """The key that quotes, as tpm2-tools take it; it has no password."""
    tcti: Text | None = None
    """How to reach the TPM, as ``TPM2TOOLS_TCTI`` says it; None: as tpm2-tools find it."""
    certificates: Path | None = None
    """PEM: the key's certificate, then those above it but the root."""


class HostSettings(Section, frozen=True):
    """What the shipper collects of its host at a run's start and end."""

    tpm: TpmSettings | None = None
    event_log: Path | None = None
    """Of the firmware, such as ``/sys/kernel/security/tpm0/binary_bios_measurements``."""
    reports: bool = False
    """A report of TDX or SEV-SNP, by Linux' ``/sys/kernel/config/tsm/report`` (6.7 and later), and
    of NVIDIA's GPUs, by ``nvattest``."""
    image: Text | None = None
    """Digest of the container's image, which a process cannot see from inside."""

    def kinds(self) -> list[str]:
        """What is asked for, by the settings' names."""
        return [name for name in self.__struct_fields__ if getattr(self, name)]

    def asked(self) -> dict[str, Any]:
        """As plain values for :meth:`of_event`, its paths absolute."""
        tpm = self.tpm
        if tpm is not None:
            ak = tpm.ak if tpm.ak.startswith("0x") else str(Path(tpm.ak).absolute())
            own = tpm.certificates and tpm.certificates.absolute()
            tpm = structs.replace(tpm, ak=ak, certificates=own)
        log = self.event_log and self.event_log.absolute()
        asked: dict[str, Any] = to_builtins(
            structs.replace(self, tpm=tpm, event_log=log), enc_hook=str
        )
        return asked

    @classmethod
    def of_event(cls, fields: Mapping[str, Any]) -> HostSettings:
        """What :meth:`asked` wrote; ``ValueError`` where it is something else."""
        return convert(fields, cls, dec_hook=lambda kind, value: kind(value))
