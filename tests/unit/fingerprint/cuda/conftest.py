"""The kernels in Triton's interpreter, on tensors in host memory that pass for a device's."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch

from provenance.fingerprint import arrays, tensors
from provenance.fingerprint.cuda import device
from tests.support.frameworks import framework

NAME = "provenance.fingerprint.cuda.blake3_kernel"


@pytest.fixture(scope="session")
def interpreted() -> ModuleType:
    framework("triton", "gpu")  # its own functions are compiled ones, as anywhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, NAME, raising=False)
        module = importlib.import_module(NAME)
    sys.modules.pop(NAME, None)
    return module


@pytest.fixture
def kernel(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """In place of the one for a device, with a program for all lanes: it is slow."""
    monkeypatch.setitem(sys.modules, NAME, interpreted)
    monkeypatch.setattr(interpreted, "digests", partial(interpreted.digests, lanes=1024))
    return interpreted


@pytest.fixture
def resident(kernel: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every torch tensor passes for one on a device that nobody has tried yet."""

    def is_resident(value: Any) -> bool:
        return isinstance(value, torch.Tensor)

    monkeypatch.setattr(device, "in_use", lambda: True)
    for module in (arrays, device, tensors):
        monkeypatch.setattr(module, "is_resident", is_resident)
    monkeypatch.setattr(device, "_devices", {})
    monkeypatch.setattr(device, "_told", False)
