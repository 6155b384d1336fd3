"""The templates beside this file: each value is escaped, and shown as in a terminal (`log.shown`),
so that it hides and reorders nothing; one that is missing is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import MissingExtraError
from provenance.log import shown

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "workers") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    return "\n".join(map(shown, value.split("\n"))) if type(value) is str else value


def fill(name: str, **values: object) -> str:
    """A template with its values."""
    return _environment().get_template(name).render(values)
