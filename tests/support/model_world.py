"""A finished run with real weights, in a database on disk, and models saved from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from safetensors.numpy import save_file

from provenance.bootstrap import sending
from provenance.fingerprint.datasets import dataset_digest
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.tensors import state_digest
from provenance.formats.record import Kind
from provenance.settings import Settings, load
from tests.support.verify_world import KEY, Fields, World, ending, metrics, seal

COMMIT = "9dac28d6d1d1c7d1e0f0c2b2a3a4a5a6a7a8a9aa"
EPOCHS = 3


def weights(epoch: int) -> dict[str, Any]:
    """Epoch 0 is before training."""
    chance = np.random.default_rng(epoch)
    return {
        "fc.bias": chance.normal(size=4).astype("float32"),
        "fc.weight": chance.normal(size=(4, 3)).astype("float32"),
        "norm.count": np.array(7, dtype="int64"),
    }


def real_story(
    algorithm: str = "blake3", parent: Any = None, states: tuple[int, ...] = (1, 2, 3)
) -> list[Fields]:
    """A whole run with the digests that a tracker records."""
    factory = HashFactory(algorithm)
    rows = np.arange(12.0).reshape(6, 2)
    events: list[Fields] = [
        (Kind.DATA_TRAIN, None, dataset_digest(rows[:4], factory).as_fields()),
        (Kind.DATA_TEST, None, dataset_digest(rows[4:], factory).as_fields()),
        (Kind.ARCHITECTURE, None, {"class": "Net"}),
        (Kind.WEIGHTS, None, state_digest(weights(0), factory).as_fields()),
        (
            Kind.CONFIG,
            None,
            {
                "public_key": KEY.public_key().public_bytes_raw().hex(),
                "hash_algorithm": algorithm,
                "world_size": 1,
                "code": {"commit": COMMIT, "dirty": False},
                "parent": parent,
                "training": {"epochs": EPOCHS, "learning_rate": 0.1},
            },
        ),
        seal("before"),
    ]
    for epoch in range(1, EPOCHS + 1):
        events.append(metrics(epoch))
        if epoch in states:
            events.append((Kind.STATE, epoch, state_digest(weights(epoch), factory).as_fields()))
    return ending(events)


def deployment(base: Path, events: list[Fields] | None = None, anchor: bool = True) -> Settings:
    """A database with the run, anchored on the local network."""
    found = load(None, base)
    world: Any = World(names=())
    world.store.close()
    world.store = sending.open_store(found)
    signer = sending.seal_policy(found).signer
    world.networks = dict(sending.open_networks(found))
    world.policy = type(world.policy)(("local",), signer)
    world.ingest(world.batch(real_story() if events is None else events))
    if anchor:
        world.anchor()
    world.store.close()
    return found


def model_folder(path: Path, epoch: int = EPOCHS) -> Path:
    """A model as people publish it: weights, config, a card, a subfolder, git's files."""
    (path / "assets").mkdir(parents=True)
    (path / "assets.d").mkdir()
    (path / ".git").mkdir()
    save_file(weights(epoch), path / "model.safetensors")
    (path / "config.json").write_text('{"hidden": 4}')
    (path / "assets" / "vocab.txt").write_text("a\nb\n")
    (path / "assets.d" / ".hidden").write_text("h")
    (path / "assets.txt").write_text("t")
    (path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (path / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return path


def key_files(folder: Path, curve: ec.EllipticCurve | None = None, passphrase: str = "") -> Path:
    """``key.pem`` (0600) and ``pub.pem``; the path of the first."""
    private = ec.generate_private_key(curve or ec.SECP256R1())
    how: Any = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "key.pem"
    place.touch(mode=0o600)
    place.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "pub.pem").write_bytes(public)
    return place
