"""The variables in a Keras file: ``.keras`` (a zip with ``model.weights.h5``), ``.weights.h5``.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). Nothing is unpickled, and no layer is made:
only the HDF5 datasets are read, by their paths in the file, such as ``layers/dense/vars/0``
(keras.src.saving.saving_lib); of a whole model's ``.h5`` (keras.src.legacy.saving) behind
``model_weights/`` and the layer's name, which are the paths of the variables. The optimizer's are
left out. Keras packs nothing: what is read is at most as large as the file.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from zipfile import ZIP_STORED, BadZipFile

from provenance.errors import FormatError, InputError
from provenance.fingerprint.arrays import load, raw_bytes
from provenance.fingerprint.named import Named
from provenance.fingerprint.weight_files import open_zip
from provenance.formats.record import Json

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
_WEIGHTS: Final = "model.weights.h5"
_OPTIMIZER: Final = ("optimizer", "optimizer_weights")
STRUCTURE: Final = frozenset(
    {"config.json", "metadata.json", "model_config", "training_config", "keras_version", "backend",
     "layer_names"}
)  # fmt: skip
"""What Keras puts beside a file's variables: members of ``.keras``, attributes of ``.h5``."""
_MAX_DEPTH: Final = 64
"""Levels of groups."""


def keras_values_file(path: str) -> Named:
    """The arrays of a Keras file.

    Raises:
        InputError: It cannot be read; an array is kept in another file, packed, or of no numbers.
        MissingExtraError: h5py is not installed.
        FormatError: It is no HDF5 file, or no zip with one.
    """
    h5py = load("h5py", "keras")
    where = f"keras file {path!r}"
    with _file_errors(where):
        content: Any = path
        if path.endswith(".keras"):
            with open_zip(path, where, (ZIP_STORED,)) as archive:
                if _WEIGHTS not in archive.namelist():
                    raise FormatError(f"{where}: no {_WEIGHTS} in it")
                content = io.BytesIO(archive.read(_WEIGHTS))
        with h5py.File(content, "r") as file:
            values, left = _arrays(h5py, file, where, os.path.getsize(path))
    covers: dict[str, Json] = {"adapter": "keras file", "of": ["variables"]}
    if left:
        covers["not"] = {"optimizer": list(left)}
    return Named(values, covers)


def beside_variables(path: str) -> list[str]:
    """What else a file that :func:`keras_values_file` reads has for Keras, by name: each other
    member of a ``.keras``; of HDF5 the attributes at its root. ``.weights.h5`` has none."""
    where = f"keras file {path!r}"
    with _file_errors(where):
        if path.endswith(".keras"):
            with open_zip(path, where, (ZIP_STORED,)) as archive:
                names = archive.namelist()
            names.remove(_WEIGHTS)
            return names
        with load("h5py", "keras").File(path, "r") as file:
            return sorted(file.attrs)


@contextmanager
def _file_errors(where: str) -> Iterator[None]:
    """What reading an untrusted file raises, as errors of this project."""
    try:
        yield
    except OSError as error:  # h5py raises it for bytes that are no HDF5 file
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
        raise FormatError(f"{where}: {str(error)[:200]}") from error
    except (RuntimeError, ValueError, TypeError, LookupError, EOFError, BadZipFile) as error:
        raise FormatError(f"{where}: {str(error)[:200]}") from error


def _arrays(h5py: Any, file: Any, where: str, size: int) -> tuple[list[tuple[str, Any]], list[str]]:
    values: list[tuple[str, Any]] = []
    left: list[str] = []
    for name, dataset in _datasets(h5py, file, where):
        if name.partition("/")[0] in _OPTIMIZER:
            left.append(name)
            continue
        found = f"{where}: {name[:80]!r}: found"
        if dataset.dtype.hasobject:
            raise InputError(f"{found} dtype {dataset.dtype}, expected numbers")
        if dataset.external or dataset.is_virtual:
            raise InputError(f"{found} an array in another file, expected one in this")
        size -= dataset.nbytes
        if size < 0:
            raise InputError(f"{found} more bytes than the file has, expected none packed")
        array = dataset[()]
        if _is_bfloat16(dataset):
            data = array.tobytes()
            values.append((name, raw_bytes(name, "BF16", dataset.shape, [data])))
        else:
            values.append((name, array))
    parts = [name.split("/", 2) for name, _ in values]
    paths = {part[2] for part in parts if part[0] == "model_weights" and len(part) == 3}
    if len(paths) == len(values):
        values = [(part[2], array) for part, (_, array) in zip(parts, values, strict=True)]
    return values, left


def _datasets(h5py: Any, file: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Each dataset once, in the order of the names; links to other files, or by a path, are none of
    the file's. Raises FormatError: groups are nested too deep."""
    seen = {h5py.h5o.get_info(file.id).addr}
    waiting = [(key, file, key) for key in sorted(file, reverse=True)]
    while waiting:
        path, group, key = waiting.pop()
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            continue
        item = group[key]
        place = h5py.h5o.get_info(item.id).addr
        if place in seen:
            continue
        seen.add(place)
        if isinstance(item, h5py.Dataset):
            yield path, item
        elif isinstance(item, h5py.Group):
            if path.count("/") >= _MAX_DEPTH:
                raise FormatError(
                    f"{where}: {path[:80]!r} is nested deeper than {_MAX_DEPTH} groups"
                )
            waiting += [(f"{path}/{key}", item, key) for key in sorted(item, reverse=True)]


def _is_bfloat16(dataset: Any) -> bool:
    """By Keras's attribute, one text."""
    if "dtype" not in dataset.attrs or dataset.attrs.get_id("dtype").shape != ():
        return False
    return bool(dataset.attrs["dtype"] == "bfloat16")
