"""The templates beside this file: each value is escaped, and shown as in a terminal (`log.shown`),
so that it hides and reorders nothing; one that is missing is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provenance.errors import MissingExtraError
from provenance.log import shown

if TYPE_CHECKING:
    from jinja2 import Environment


HERE: Final = Path(__file__).resolve().parent


@cache
def _environment(folder: Path) -> Environment:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "workers") from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: object) -> object:
    return "\n".join(map(shown, value.split("\n"))) if type(value) is str else value


def fill(name: str, folder: Path = HERE, **values: object) -> str:
    """A template with its values; one of another folder may build on those here."""
    return _environment(folder).get_template(name).render(values)
