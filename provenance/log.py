"""Lines that a person may read on a terminal: texts made harmless, structured log lines.

structlog is imported at the first log line: it brings rich's console renderer along, a third of
a trainer's import time, and most trainings log nothing.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

# Letters and marks that a terminal draws as nothing (Unicode: Default_Ignorable_Code_Point, and
# the blank of Braille). What is of the categories C and Z, str.isprintable tells.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
# What makes one emoji of others: the selector behind one, the joiner between two (UTS 51).
_PICTURE: Final = "[\u2600-\u27bf\U0001f000-\U0001faff]"
_JOINING: Final = re.compile(
    f"(?<={_PICTURE})\ufe0f|(?<={_PICTURE[:-1]}\ufe0f])\u200d(?={_PICTURE})"
)


def shown(text: str) -> str:
    r"""A text for one line of a terminal, whoever wrote it: it moves and hides nothing.

    Control characters (C0, DEL, C1; newlines too), the controls of writing direction, separators
    of lines, invisible, private, unassigned characters and lone surrogates become ``\xNN``,
    ``\uNNNN`` or ``\UNNNNNNNN``. Everything for people passes here, at the last moment.
    """
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
        return text
    kept = {match.start() for match in _JOINING.finditer(text)}
    return "".join(
        c if at in kept or (c.isprintable() and not _UNSEEN.match(c)) else _escaped(ord(c))
        for at, c in enumerate(text)
    )


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class LazyLogger:
    """A structlog logger that is made anew for each line, so that a later
    ``structlog.configure`` counts. Where nobody called it, lines go to stderr: stdout is the
    training's own, and the answer of a command. Texts in a line are :func:`shown`."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __getattr__(self, method: str) -> Any:
        import structlog

        own = None if structlog.is_configured() else structlog.PrintLogger(sys.stderr)
        log = getattr(structlog.wrap_logger(own, logger_factory_args=self._names), method)

        def line(event: str, **fields: object) -> Any:
            plain = {k: shown(v) if isinstance(v, str) else v for k, v in fields.items()}
            return log(shown(event), **plain)

        return line


def get_logger(*names: str) -> Any:
    """As ``structlog.get_logger``; nothing is imported yet."""
    return LazyLogger(*names)
