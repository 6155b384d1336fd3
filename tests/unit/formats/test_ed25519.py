"""Keys of small order, for which anybody signs, are refused wherever a signature counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from provenance.errors import BadSignatureError
from provenance.formats.cosignature import WitnessKey, cosigned_message
from provenance.formats.ed25519 import SMALL_ORDER, verify_signature
from provenance.formats.note import SignerKey, VerifierKey, encode_base64, split_note, verify_note
from provenance.formats.producers.acknowledgement import open_acknowledgement
from provenance.formats.producers.certificate import Certificate, open_identity, run_id
from provenance.formats.producers.statement import Statement
from provenance.fsck.local_file import read_line as fsck_line
from provenance.proofs.local_file import read_line, write_line

RUN_KEY = bytes(range(32))
RUN, PRODUCER = run_id(RUN_KEY, 1), b"p" * 16
ZERO_S = bytes(32)
WEAK = [
    pytest.param(key[:31] + bytes([key[31] | sign]), id=f"{key.hex()[:6]}-{sign:02x}")
    for key in sorted(SMALL_ORDER)
    for sign in (0x00, 0x80)
]


def twin(key: bytes, message: bytes) -> bytes | None:
    """A signature by nobody: S = 0, and R that small-order point which fits the message."""
    public = Ed25519PublicKey.from_public_bytes(key)
    for point in SMALL_ORDER:
        for sign in (0x00, 0x80):
            signature = point[:31] + bytes([point[31] | sign]) + ZERO_S
            try:
                public.verify(signature, message)
            except InvalidSignature:
                continue
            return signature
    return None


def test_the_library_alone_takes_signatures_by_nobody() -> None:
    """What the list is for: one key of it signs any two messages without a secret."""
    identity_point = b"\1" + bytes(31)
    one, two = (twin(identity_point, message) for message in (b"a head", b"another head"))
    assert one is not None
    assert one == two


def note(key: bytes) -> None:
    verifier = VerifierKey("weak", key)
    text = "weak\n1\nAAAA\n"
    signature = twin(key, text.encode()) or bytes(64)
    line = f"\n\u2014 weak {encode_base64(verifier.key_id + signature)}\n"
    verify_note(*split_note(text + line), verifier)


def witness(key: bytes) -> None:
    own = WitnessKey("weak", key)
    text = "weak\n1\nAAAA\n"
    signature = twin(key, cosigned_message(text, 1)) or bytes(64)
    line = f"\n\u2014 weak {encode_base64(own.key_id + (1).to_bytes(8, 'big') + signature)}\n"
    own.cosignatures(*split_note(text + line))


def local(key: bytes) -> None:
    read_line(write_line(None, bytes(36), 0, lambda message: twin(key, message) or bytes(64)), key)


USES: dict[str, Callable[[bytes], object]] = {
    "note": note,
    "witness": witness,
    "local": local,
    "certificate": lambda key: Certificate.decode(
        run_id(key, 1).bytes + key + PRODUCER + RUN_KEY + bytes(4 + 64)
    ),
    "acknowledgement": lambda key: open_acknowledgement(bytes(104), RUN, PRODUCER, key),
    "identity": lambda key: open_identity(b"\1" + key + bytes(64), RUN, RUN_KEY),
    "statement": lambda key: Statement(PRODUCER, 1, bytes(64)).verify(RUN, bytes(32), key),
}


@pytest.mark.parametrize("key", WEAK)
@pytest.mark.parametrize("use", USES)
def test_a_key_that_anybody_signs_for_signs_nothing(key: bytes, use: str) -> None:
    with pytest.raises(BadSignatureError, match="anybody signs for|by weak.* does not verify"):
        USES[use](key)


@pytest.mark.parametrize("key", WEAK)
def test_the_checker_refuses_it_in_the_local_file(key: bytes) -> None:
    line = write_line(None, bytes(36), 0, lambda message: twin(key, message) or bytes(64))
    assert fsck_line(line, key) == (bytes(36), "was changed, or signed by another key")


def test_no_other_file_verifies_ed25519_by_itself() -> None:
    """One door: what else of the package asks the library would take such a key."""
    package = Path(verify_signature.__code__.co_filename).parents[1]
    direct = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "Ed25519PublicKey." in path.read_text("utf-8")
    }
    assert direct == {"formats/ed25519.py"}


def test_a_signature_by_a_key_of_its_holder_is_taken() -> None:
    signer = SignerKey.from_private_bytes("own", RUN_KEY)
    verify_signature(signer.verifier.public_bytes, signer.sign(b"text"), b"text", "text")
    with pytest.raises(BadSignatureError, match="text: does not verify"):
        verify_signature(signer.verifier.public_bytes, signer.sign(b"text"), b"other", "text")
