"""The firmware's event log, replayed into the PCRs that it explains.

TCG PC Client Platform Firmware Profile, 10.2: a first event in the old form, whose data
(``TCG_EfiSpecIDEvent``) names the banks, then crypto-agile events (``TCG_PCR_EVENT2``),
little-endian; Linux has it in ``/sys/kernel/security/tpm0/binary_bios_measurements``. A PCR begins
as zeros (PCR 0 with the locality of the start in its last byte, where an event says so) and becomes
SHA-256(PCR || digest) with each event but ``EV_NO_ACTION``. What an event's data says is not
compared with its digest here.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from provenance.errors import FormatError, TooLargeError, TruncatedError
from provenance.proofs.host.evidence import MAX_EVENT_LOG_BYTES

EV_NO_ACTION: Final = 3
SPEC_ID: Final = b"Spec ID Event03\0"
LOCALITY: Final = b"StartupLocality\0"
SHA256_BANK: Final = 0x000B
MAX_EVENTS: Final = 20_000
FIRMWARE_PCRS: Final = range(8)
"""Which nothing but the firmware extends, so that its log explains them whole (PFP, 3.3.4)."""


def replay(data: bytes) -> dict[int, bytes]:
    """The PCRs of the SHA-256 bank, 32 bytes by number, after every event of the log.

    Raises:
        FormatError: Not such a log, or one without a SHA-256 bank.
        TooLargeError: Over 1 MiB or 20,000 events.
    """
    if len(data) > MAX_EVENT_LOG_BYTES:
        raise TooLargeError(f"event log of {len(data)} bytes, at most {MAX_EVENT_LOG_BYTES}")
    pcr, kind, size = _unpack("<II20xI", data, 0)
    spec, at = data[32 : 32 + size], 32 + size
    if (pcr, kind) != (0, EV_NO_ACTION) or spec[:16] != SPEC_ID:
        raise FormatError("event log: does not begin with a Spec ID Event03")
    banks = _banks(spec)
    values: dict[int, bytes] = {}
    events = 0
    while at < len(data):
        events += 1
        if events > MAX_EVENTS:
            raise TooLargeError(f"event log: more than {MAX_EVENTS} events")
        pcr, kind, count = _unpack("<III", data, at)
        at += 12
        if pcr > 23 or count > len(banks):
            raise FormatError(f"event log: event {events}: PCR {pcr}, {count} digests")
        digests: dict[int, bytes] = {}
        for _ in range(count):
            (bank,) = _unpack("<H", data, at)
            if bank not in banks or bank in digests:
                raise FormatError(f"event log: event {events}: a digest of bank {bank:04x}")
            digests[bank] = _take(data, at + 2, banks[bank])
            at += 2 + banks[bank]
        (size,) = _unpack("<I", data, at)
        event = _take(data, at + 4, size)
        at += 4 + size
        if kind != EV_NO_ACTION:
            if SHA256_BANK not in digests:
                raise FormatError(f"event log: event {events}: no SHA-256 digest")
            before = values.get(pcr, bytes(32))
            values[pcr] = hashlib.sha256(before + digests[SHA256_BANK]).digest()
        elif pcr == 0 and event[:16] == LOCALITY and len(event) == 17:
            values[0] = bytes(31) + event[16:]
    return values


def _banks(spec: bytes) -> dict[int, int]:
    """Sizes of digests by bank."""
    (count,) = _unpack("<I", spec, 24)
    if count > 8:
        raise FormatError(f"event log: {count} banks, at most 8")
    banks = {}
    for at in range(count):
        bank, size = _unpack("<HH", spec, 28 + 4 * at)
        banks[bank] = size
    if banks.get(SHA256_BANK) != 32:
        raise FormatError("event log: no SHA-256 bank")
    return banks


def _unpack(form: str, data: bytes, at: int) -> tuple[int, ...]:
    return struct.unpack(form, _take(data, at, struct.calcsize(form)))


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise TruncatedError(f"event log: ends at byte {len(data)}, expected {at + size}")
    return data[at : at + size]
