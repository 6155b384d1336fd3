"""Structured log lines (structlog), imported at the first of them.

structlog brings rich's console renderer along, a third of a trainer's import time, and most
trainings log nothing.
"""

from __future__ import annotations

from typing import Any


class LazyLogger:
    """A structlog logger that is made anew for each line, so that a later
    ``structlog.configure`` counts."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getattr__(self, method: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(*self._names), method)


def get_logger(*names: str) -> Any:
    """As ``structlog.get_logger``; nothing is imported yet."""
    return LazyLogger(*names)
