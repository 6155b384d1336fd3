"""What a caller gives, as records carry it, or the one line that says what was expected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from provenance.errors import InputError
from provenance.formats.record import MAX_SAFE_INTEGER, Json, normalise
from provenance.log import get_logger

if TYPE_CHECKING:
    from provenance.settings import Settings
    from provenance.settings.hyperparameters import Hyperparameters

log = get_logger("provenance")

_DEPTH: Final = 4
"""How deep metrics stand in the record of their steps, whose depth is bounded as a whole."""
_MAX_TEXT: Final = 1_000_000
"""Characters of a name, tag, group or note."""


_base_dirs: Final[dict[str, set[Path]]] = {}
"""What each relative base directory was in this process."""


def base_directory(given: object) -> Path:
    """The absolute path of a base directory: a relative one is below the working directory as it
    is now, and where that text was another folder before, one warning line says so.
    ``ConfigError`` of no path."""
    from provenance.settings.objects import BASE_DIR, absolute

    base = absolute(given, *BASE_DIR)
    earlier = _base_dirs.setdefault(str(given), {base})
    if base not in earlier:
        problem = f"{given} was {min(earlier)} before the working directory changed, and is {base}"
        log.warning("base_dir: another deployment; expected an absolute path", problem=problem)
    earlier.add(base)
    return base


def anchored(arguments: dict[str, Any]) -> dict[str, Any]:
    """A tracker's arguments with paths that stay what they are where the process changes its
    folder before the training begins, as Hydra does."""
    from provenance.settings.objects import absolute

    config = arguments.get("config")
    anchored = {**arguments, "base_dir": base_directory(arguments.get("base_dir", "artifacts"))}
    if isinstance(config, str | os.PathLike):
        anchored["config"] = absolute(config, "config", "the path of a file")
    return anchored


def shown(value: object) -> str:
    """A wrong argument, in a message."""
    return repr(value)[:60] if isinstance(value, str) else f"a {type(value).__name__}"


def whole_number(what: str, number: object) -> int:
    """An epoch or step, from 0 to 2^53 - 1, as an int: of an int, a float without a fraction, or a
    scalar of NumPy, torch or JAX; ``InputError`` of anything else."""
    if type(number) is int and 0 <= number <= MAX_SAFE_INTEGER:
        return number
    try:
        plain = normalise(number, what)
    except InputError:
        plain = None
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    if type(plain) is int and 0 <= plain <= MAX_SAFE_INTEGER:
        return plain
    shown = repr(plain)[:40] if plain is not None else f"a {type(number).__name__}"
    if isinstance(number, int):  # of which one beyond 2^53 is a text in plain
        shown = shown.strip("'")
    more = "; between two epochs, record a step" if isinstance(plain, float) else ""
    expected = f"a whole number from 0 to {MAX_SAFE_INTEGER}{more}"
    raise InputError(f"{what}: found {shown}, expected {expected}")


def plain_text(what: str, value: object) -> str | None:
    """A name, group or note, or None; ``InputError`` of no text."""
    if value is not None and not isinstance(value, str):
        raise InputError(f"{what}: found a {type(value).__name__}, expected a text")
    return value


def check_length(fields: Mapping[str, Json]) -> None:
    """Refuse labels and notes that are too long, tags in all, with ``InputError``."""
    for what, value in fields.items():
        texts = value if isinstance(value, list) else [value or ""]
        count = sum(len(str(text)) for text in texts)
        if count > _MAX_TEXT:
            expected = f"expected at most {_MAX_TEXT:,}"
            raise InputError(f"{what}: found {count:,} characters, {expected}")


def plain_texts(what: str, values: Iterable[object]) -> list[Json]:
    """Tags; ``InputError`` of one text, and of other values."""
    if not isinstance(values, str) and isinstance(values, Iterable):
        given = [*values]
        texts = [text for text in given if isinstance(text, str)]
        if len(texts) == len(given):
            return [*texts]
    raise InputError(f"{what}: found {values!r:.80}, expected a list of texts")


def plain_mapping(name: str, value: object) -> dict[str, Json]:
    """A mapping of names to values with a JSON form; or ``InputError``."""
    if not isinstance(value, Mapping):
        raise InputError(f"{name}: found a {type(value).__name__}, expected a mapping")
    result = normalise(value, name, _DEPTH)
    assert isinstance(result, dict)
    texts = {str(key): inner for key, inner in value.items() if isinstance(inner, str)}
    if texts:
        from provenance.settings.redaction import REDACTED, is_secret, redacted

        for key in texts.keys() & result.keys():
            result[key] = REDACTED if is_secret(key) else redacted(str(result[key]))[0]
    return result


def plain_part(name: str, value: object) -> tuple[dict[str, Json], InputError | None]:
    """Metrics, or a budget: the values with a JSON form, and an error that names the others;
    ``InputError`` of no mapping."""
    if not isinstance(value, Mapping):
        return plain_mapping(name, value), None
    fields: dict[str, Json] = {}
    problems: list[str] = []
    # What a foreign object raises is anything.
    try:
        return plain_mapping(name, value), None
    except Exception as error:  # noqa: BLE001  as above, and it must not end the training
        whole = _problem(name, value, error)
    with suppress(Exception):
        for key, inner in value.items():
            try:
                fields |= plain_mapping(name, {key: inner})
            except Exception as error:  # noqa: BLE001  as above
                problems.append(_problem(f"{name}.{key}"[:200], inner, error))
    more = f"; {len(problems) - 1} more" if len(problems) > 1 else ""
    return fields, InputError(f"{problems[0] if problems else whole}{more}"[:500])


def _problem(name: str, value: object, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"{name}: found a {type(value).__name__} that cannot be read ({type(error).__name__})"


def plain(values: Mapping[str, object]) -> dict[str, Json]:
    """A mapping as JSON: each value as that of a configuration (settings.hyperparameters)."""
    return {str(name): _plain(value, 0) for name, value in values.items()}


def _plain(value: object, depth: int) -> Json:
    if value.__class__ in (float, int):
        return normalise(value)
    if isinstance(value, Mapping) and depth < 16:
        return {str(name): _plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple) and depth < 16:
        return [_plain(inner, depth + 1) for inner in value]
    from provenance.settings.hyperparameters import hyperparameters

    return hyperparameters({"": value}).values[""]


def plain_config(
    settings: Settings, given: Hyperparameters, first: Hyperparameters | None
) -> dict[str, dict[str, Any]]:
    """The configuration in a config record: that of the settings, what is given as training begins,
    and what ``provenance.run`` was given ``first``, whose values stand."""
    values, notes = first or ({}, {})
    other = sorted(key for key in values if given.values.get(key, values[key]) != values[key])
    if other:
        problem = f"found other values of {', '.join(other)[:200]}; those of run() stand"
        log.warning("configuration", problem=problem)
    return {
        "training": {**settings.training, **given.values, **values},
        "config_notes": {**settings.training_notes, **given.notes, **notes},
    }


def plain_results(value: object) -> dict[str, Json]:
    """The body of a results record: a training that is over is not to fail for a path in it."""
    try:
        return {"results": plain_mapping("training_results", value)}
    except InputError:
        return results_in_part(value)


def results_in_part(value: object) -> dict[str, Json]:
    """As a configuration is recorded, with notes; ``InputError`` of no mapping."""
    from provenance.settings.hyperparameters import hyperparameters

    read = hyperparameters(value, "training_results")
    return {"results": read.values, "notes": {**read.notes}}
