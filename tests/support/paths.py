"""Where things lie in this checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).resolve().parents[1]
ROOT: Final = TESTS.parent
VECTORS: Final = TESTS / "vectors"
STRANGER: Final = TESTS / "stranger"
