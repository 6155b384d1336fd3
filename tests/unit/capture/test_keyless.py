"""Signing by Sigstore: a process of its own, with a stand-in for the services it would reach."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from provenance.capture.keys import RunKeys, new_run_keys
from provenance.capture.reasons import UNSIGNED, noted
from provenance.capture.ship import keyless
from provenance.capture.ship.keyless import SIGNED_FILE, sign_envelope, signed
from provenance.errors import BadSignatureError, UnavailableError
from provenance.formats.approval import TrustApproval
from provenance.formats.dsse import Envelope
from provenance.formats.producers.certificate import open_identity
from tests.support.sigstore_world import ISSUER, WHO

STAND_IN = {
    "__init__.py": "",
    "models.py": "class ClientTrustConfig:\n    production = staticmethod(lambda: 'production')\n",
    "oidc.py": """
import os
class IdentityToken:
    def __init__(self, raw):
        if raw != "a-token":
            raise ValueError("Identity token is malformed")
def detect_credential():
    return os.environ.get("TEST_AMBIENT")
""",
    "dsse.py": """
class Statement:
    def __init__(self, contents):
        self.contents = contents
""",
    "sign.py": """
import contextlib
from tests.support.sigstore_world import Sigstore
class Bundle:
    def __init__(self, data):
        self.data = data
    def to_json(self):
        return self.data.decode()
class SigningContext:
    @classmethod
    def from_trust_config(cls, config):
        assert config == "production"
        return cls()
    @contextlib.contextmanager
    def signer(self, token):
        yield self
    def sign_artifact(self, data):
        return Bundle(Sigstore().sign(data))
    def sign_dsse(self, statement):
        return Bundle(Sigstore().sign_statement(statement.contents))
""",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package ``sigstore`` that the child finds first."""
    folder = tmp_path / "path" / "sigstore"
    folder.mkdir(parents=True)
    for name, text in STAND_IN.items():
        (folder / name).write_text(text)
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder.parent, root))))
    monkeypatch.delenv(keyless.TOKEN_ENV, raising=False)
    return folder


@pytest.fixture
def keys() -> RunKeys:
    return replace(new_run_keys(), sigstore="")


@pytest.mark.slow
def test_a_run_is_signed_once_with_the_token_that_is_there(
    package: Path, keys: RunKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("a-token\n")
    for name, value, asked in (
        ("TEST_AMBIENT", "a-token", keys),
        (keyless.TOKEN_ENV, "a-token", keys),
        ("TEST_AMBIENT", "another", replace(keys, sigstore=str(token))),
    ):
        monkeypatch.setenv(name, value)
        folder = tmp_path / f"run-{name}-{value}"
        folder.mkdir()
        made = signed(folder, asked, may_sign=True)
        assert made.identity is not None
        identity = open_identity(made.identity, keys.run, keys.public_key)
        assert identity.label == f"{WHO}, by {ISSUER}"
        assert made.identity == (folder / SIGNED_FILE).read_bytes()
        assert signed(folder, asked, may_sign=True) == made
        assert signed(folder, asked, may_sign=False) == made
        monkeypatch.delenv(name)


def test_nothing_is_signed_where_nobody_asks_or_it_is_too_late(
    keys: RunKeys, tmp_path: Path
) -> None:
    assert signed(tmp_path, keys, may_sign=False) == keys
    for other in (replace(keys, sigstore=None), replace(keys, identity=b"\1" * 97)):
        assert signed(tmp_path, other, may_sign=True) == other
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("__init__.py", "raise ImportError", "pip install 'ml-provenance[sigstore]'"),
        ("oidc.py", STAND_IN["oidc.py"].replace("TEST_AMBIENT", "NONE"), "SIGSTORE_ID_TOKEN is"),
        ("oidc.py", STAND_IN["oidc.py"].replace("a-token", "b"), "Identity token is malformed"),
        ("sign.py", "import time; time.sleep(60)", "no signature within 2 s"),
        ("sign.py", "raise OSError('no route to host')", "no route to host"),
        ("sign.py", STAND_IN["sign.py"].replace("sign(data)", "sign(b'')"), "another message"),
        ("sign.py", STAND_IN["sign.py"].replace(".decode()", "[9:].decode()"), "JSONDecodeError"),
    ],
)
def test_why_nobody_signs_is_one_line_and_kept(
    package: Path,
    keys: RunKeys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    text: str,
    reason: str,
) -> None:
    monkeypatch.setenv("TEST_AMBIENT", "a-token")
    if "time" in text:
        monkeypatch.setattr(keyless, "WAIT_S", 2.0)
    (package / file).write_text(text)
    (tmp_path / "spool" / "run").mkdir(parents=True)
    with pytest.raises(UnavailableError) as caught:
        signed(tmp_path / "spool" / "run", keys, may_sign=True)
    told = str(caught.value)
    assert reason in told
    assert "\n" not in told
    assert "a-token" not in told
    assert noted(tmp_path / "spool", UNSIGNED) == {"run": told}
    (package / file).write_text(STAND_IN[file])
    assert signed(tmp_path / "spool" / "run", keys, may_sign=True).identity is not None
    assert not (tmp_path / "spool" / "run" / UNSIGNED).exists()


@pytest.mark.slow
def test_an_account_signs_a_statement_beside_others(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = Envelope(TrustApproval.of({}).encode(), {"00" * 32: b"another's"})
    with pytest.raises(UnavailableError, match="no token"):
        sign_envelope(envelope)
    monkeypatch.setenv(keyless.TOKEN_ENV, "a-token")
    made = sign_envelope(envelope)
    assert made.payload == envelope.payload
    assert made.signatures.keys() == {"00" * 32, f"{WHO}, by {ISSUER}"}
    (package / "sign.py").write_text(STAND_IN["sign.py"].replace("statement.contents", "b'{}'"))
    with pytest.raises(BadSignatureError, match="Sigstore: ci@.* does not fit its certificate"):
        sign_envelope(envelope)
