"""Jinja2 as the report uses it: every value is escaped, a value that is not there is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from provenance.errors import MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    """The templates beside this file."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "workers") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def fill(name: str, **values: object) -> str:
    """A template with its values, each escaped.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    return _environment().get_template(name).render(values)
