"""Checkpoint files: read by another process, as they were at the call, or not at all."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from provenance.capture.weights.weight_file import TICK_S, WeightFile
from provenance.errors import InputError, ProvenanceError
from provenance.fingerprint.tensors import state_digest
from tests.support.frameworks import framework


def save(path: Path, value: float = 1.0, size: int = 1000) -> Path:
    data = np.full(size, value, np.float32).tobytes()
    entry = {"dtype": "F32", "shape": [size], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.mark.slow
def test_the_fields_are_those_of_the_state(tmp_path: Path) -> None:
    path = save(tmp_path / "w.safetensors")
    fields = WeightFile.at(path).digest("sha256")
    expected = state_digest({"w": np.ones(1000, np.float32)}).as_fields()
    expected["covers"] = {"adapter": "safetensors file", "of": ["tensors"]}
    assert fields["algorithm"] == "sha256"
    assert fields["tensors"][0]["shape"] == expected["tensors"][0]["shape"]
    assert WeightFile.at(path).digest("blake3") == expected


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        WeightFile.at(tmp_path / "absent.npz")
    os.mkfifo(tmp_path / "pipe.npz")  # its reader would wait for ever, and the run's end for it
    with pytest.raises(InputError, match="pipe.npz': is neither a file nor a folder"):
        WeightFile.at(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="null byte"):
        WeightFile.at("w\0.npz")
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"12")
    with pytest.raises(InputError, match=r"w\.safetensors.*2 bytes"):
        WeightFile.at(path).digest("blake3")


@pytest.mark.parametrize("kind", [".safetensors", ""])
def test_a_link_stands_for_the_file_that_it_leads_to_at_the_call(tmp_path: Path, kind: str) -> None:
    """``last`` among checkpoints; a file of Hugging Face's cache leads to one without a kind."""
    last, first = tmp_path / "last.safetensors", save(tmp_path / f"first{kind}")
    last.symlink_to(first)
    taken = WeightFile.at(last)
    if kind:
        last.unlink()
        last.symlink_to(save(tmp_path / "second.safetensors", 2.0))
    assert taken.digest("blake3")["root"] == str(state_digest({"w": np.ones(1000, np.float32)}))


def rewrite(path: Path) -> None:
    save(path, 2.0)


def replace(path: Path) -> None:
    os.replace(save(path.with_suffix(".new")), path)


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def touch_back(path: Path) -> None:
    before = path.stat()
    save(path, 3.0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("change", [rewrite, replace, truncate, touch_back, Path.unlink])
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_file_that_changed_is_refused(
    tmp_path: Path, change: Any, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "w.safetensors", size=100_000)
    taken = WeightFile.at(path)
    time.sleep(2 * TICK_S)
    if when == "before":
        change(path)
    else:
        real = subprocess.run

        def run(*arguments: Any, **options: Any) -> Any:
            done = real(*arguments, **options)
            change(path)
            return done

        monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ProvenanceError, match=r"it changed|No such file"):
        taken.digest("blake3")


def test_a_reader_that_a_signal_ends_is_an_error_not_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "w.safetensors")
    real = subprocess.run

    def killed(command: list[str], **options: Any) -> Any:
        return real(["/bin/sh", "-c", "kill -BUS $$"], **options)

    monkeypatch.setattr(subprocess, "run", killed)
    with pytest.raises(InputError, match="its reader ended with -7"):
        WeightFile.at(path).digest("blake3")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_a_file_of_torch_is_read_in_memory_where_the_training_waits(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = framework("torch")
    path = tmp_path / f"m{suffix}"
    torch.save({"w": torch.ones(1000), "n": torch.zeros(2, 3)}, path)
    expected = WeightFile.at(path).digest("sha256")
    monkeypatch.setattr(subprocess, "run", None)
    assert WeightFile.at(path).digest("sha256", here=True) == expected
    taken = WeightFile.at(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="it changed before it was read"):
        taken.digest("sha256", here=True)
    with pytest.raises(InputError, match=f"m{suffix}: cannot be read as tensors alone"):
        WeightFile.at(path).digest("sha256", here=True)
    maps = Path("/proc/self/maps").read_text()
    assert str(path) not in maps
