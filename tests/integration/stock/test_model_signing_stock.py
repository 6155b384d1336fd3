"""The stock ``model_signing`` program and the signatures that ``provenance sign`` makes.

model-signing 1.1.1 imports pyOpenSSL for its certificate method without asking for it. Where
that is not installed, an empty module stands in: the key method never looks into it, and
whatever did would fail.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from provenance import cli
from tests.conftest import missing
from tests.support.model_world import deployment, key_files, model_folder, weights

Stock = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def stock(tmp_path: Path) -> Stock:
    """Runs ``model_signing`` in the test's folder."""
    if importlib.util.find_spec("model_signing") is None:
        missing("model_signing is not installed; run: pip install model-signing==1.1.1")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if importlib.util.find_spec("OpenSSL") is None:
        stand_in = tmp_path / "stand-in" / "OpenSSL"
        stand_in.mkdir(parents=True)
        (stand_in / "__init__.py").touch()
        (stand_in / "crypto.py").touch()
        environment["PYTHONPATH"] = str(stand_in.parent)

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "model_signing", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``model`` (signed), ``k/key.pem``, ``k/pub.pem`` and the database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROVENANCE_SIGNING_PASSPHRASE", raising=False)
    deployment(tmp_path / "artifacts")
    model_folder(tmp_path / "model")
    key_files(tmp_path / "k")
    sign("model")
    return tmp_path


def sign(model: str, *more: str, key: str = "k/key.pem") -> None:
    assert cli.main(["sign", model, "--run", "latest", "--key", key, *more]) == 0


def verify(
    stock: Stock, model: str = "model", signature: str = "model/model.sig", key: str = "k/pub.pem"
) -> str:
    """Empty where the stock program accepts, else what it says."""
    done = stock("verify", "key", model, "--signature", signature, "--public_key", key)
    if done.returncode == 0:
        assert "Verification succeeded" in done.stdout + done.stderr
        return ""
    assert "Verification failed with error" in done.stderr, done.stderr
    return done.stderr.replace("\\", "")  # It shows a Python list, quoted in one of two ways.


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def payload(signature: Path) -> dict[str, Any]:
    envelope = json.loads(signature.read_bytes())["dsseEnvelope"]
    found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    return found


def test_it_accepts_the_model(signed: Path, stock: Stock) -> None:
    assert verify(stock) == ""


@pytest.mark.parametrize("name", ["model.safetensors", "assets.d/.hidden", "config.json"])
def test_it_refuses_one_flipped_bit_of_any_file(signed: Path, stock: Stock, name: str) -> None:
    flip(signed / "model" / name)
    assert f"Hash mismatch for '{name}'" in verify(stock)


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_it_refuses_one_flipped_bit_of_the_signature(signed: Path, stock: Stock, part: str) -> None:
    place = signed / "model/model.sig"
    document = json.loads(place.read_bytes())
    holder = document["dsseEnvelope"]
    holder = holder if part == "payload" else holder["signatures"][0]
    data = bytearray(base64.b64decode(holder[part]))
    data[len(data) // 2] ^= 1
    holder[part] = base64.b64encode(data).decode()
    place.write_text(json.dumps(document))
    assert verify(stock)


def test_it_refuses_a_changed_claim_about_the_run(signed: Path, stock: Stock) -> None:
    """The field that its version does not know is signed all the same."""
    place = signed / "model/model.sig"
    document = json.loads(place.read_bytes())
    said = payload(place)
    said["predicate"]["provenance"]["weights"]["epoch"] = 2
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
    place.write_text(json.dumps(document))
    assert verify(stock)


def test_it_refuses_added_and_missing_files_and_other_keys(signed: Path, stock: Stock) -> None:
    (signed / "model/extra.py").write_text("import os")
    assert "Extra files found" in verify(stock)
    (signed / "model/extra.py").unlink()
    (signed / "model/config.json").unlink()
    assert "Missing files" in verify(stock)
    key_files(signed / "other")
    assert "Key mismatch" in verify(stock, key="other/pub.pem")


def test_what_it_leaves_out_may_change(signed: Path, stock: Stock) -> None:
    (signed / "model/.git/HEAD").write_text("elsewhere")
    (signed / "model/.gitignore").write_text("*.tmp")
    assert verify(stock) == ""


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_it_accepts_the_other_curves_and_encrypted_keys(
    signed: Path, stock: Stock, curve: ec.EllipticCurve, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_files(signed / "big", curve, passphrase="secret")
    monkeypatch.setenv("PROVENANCE_SIGNING_PASSPHRASE", "secret")
    sign("model", "-o", "out.sig", key="big/key.pem")
    # The signature of the other key lies in the folder, and is one of the signed files.
    assert verify(stock, signature="out.sig", key="big/pub.pem") == ""
    flip(signed / "model/model.sig")
    assert "Hash mismatch for 'model.sig'" in verify(stock, "model", "out.sig", "big/pub.pem")


def test_it_accepts_a_single_file(signed: Path, stock: Stock) -> None:
    from safetensors.numpy import save_file

    save_file(weights(1), "one.safetensors")
    sign("one.safetensors")
    assert verify(stock, "one.safetensors", "one.safetensors.sig") == ""
    flip(signed / "one.safetensors", at=-1)
    assert verify(stock, "one.safetensors", "one.safetensors.sig")


def test_files_and_their_order_are_those_of_the_stock_signer(signed: Path, stock: Stock) -> None:
    for name in ("z", "B", "a b.txt", "ü.txt", "assets-2/x", "assets/.git/deep", ".gitx", "model"):
        place = signed / "model" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(name)
    (signed / "model/empty").mkdir()
    (signed / "model/.github").mkdir()
    (signed / "model/.github/ci.yml").write_text("on: push")
    sign("model")
    ours = payload(signed / "model/model.sig")
    words = ("--private_key", "k/key.pem", "--signature", "model/model.sig")
    done = stock("sign", "key", "model", *words)
    assert done.returncode == 0, done.stderr
    theirs = payload(signed / "model/model.sig")
    assert ours["predicate"]["resources"] == theirs["predicate"]["resources"]
    assert ours["subject"] == theirs["subject"]
    for document in (ours, theirs):
        document["predicate"]["serialization"]["ignore_paths"].sort()
    assert ours["predicate"]["serialization"] == theirs["predicate"]["serialization"]
    assert ours.keys() == theirs.keys()
    # And ours replaces theirs: it is a signature.
    sign("model")
    assert verify(stock) == ""
