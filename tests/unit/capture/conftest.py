"""What tests of weights share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.frameworks import framework
from tests.support.spooled import default_log as default_log


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other longer than these tiny models take."""
    torch = framework("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
