"""The variables in a Keras file: ``.keras`` (a zip with ``model.weights.h5``), ``.weights.h5``.

WARNING: FROZEN FORMAT (docs/FORMAT.md, section 3.3). Nothing is unpickled, and no layer is made:
only the HDF5 datasets are read, by their paths in the file, such as ``layers/dense/vars/0``
(keras.src.saving.saving_lib). The optimizer's are left out.
"""

from __future__ import annotations

import io
import os
from typing import Any, Final

from provenance.errors import FormatError, InputError, MissingExtraError
from provenance.fingerprint.arrays import raw_bytes
from provenance.fingerprint.named import Named
from provenance.fingerprint.weight_files import open_zip
from provenance.formats.record import Json

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
_WEIGHTS: Final = "model.weights.h5"
_OPTIMIZER: Final = ("optimizer", "optimizer_weights")
_RATIO: Final = 1032
"""Most bytes that deflate makes of one (RFC 1951)."""


def keras_values_file(path: str) -> Named:
    """The arrays of a Keras file.

    Raises:
        InputError: It cannot be read, or an array is kept in another file.
        MissingExtraError: h5py is not installed.
        FormatError: It is no HDF5 file, or no zip with one.
    """
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MissingExtraError("h5py", "keras") from error
    where, source = f"keras file {path!r}", path
    try:
        if path.endswith(".keras"):
            with open_zip(path, where) as archive:
                if _WEIGHTS not in archive.namelist():
                    raise FormatError(f"{where}: no {_WEIGHTS} in it")
                data: Any = io.BytesIO(archive.read(_WEIGHTS))
            size = len(data.getbuffer())
        else:
            data, size = source, os.path.getsize(path)
        with h5py.File(data, "r") as file:
            values, left = _arrays(h5py, file, where, size)
    except OSError as error:  # h5py raises it for bytes that are no HDF5 file
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise InputError(f"{where}: cannot be read: {error.strerror or error}") from error
        raise FormatError(f"{where}: {str(error)[:200]}") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise FormatError(f"{where}: {str(error)[:200]}") from error
    covers: dict[str, Json] = {"adapter": "keras file", "of": ["variables"]}
    if left:
        covers["not"] = {"optimizer": list(left)}
    return Named(values, covers)


def _arrays(h5py: Any, file: Any, where: str, size: int) -> tuple[list[tuple[str, Any]], list[str]]:
    datasets: list[tuple[str, Any]] = []
    file.visititems(
        lambda name, item: datasets.append((name, item)) if isinstance(item, h5py.Dataset) else None
    )
    values: list[tuple[str, Any]] = []
    left = [name for name, _ in datasets if name.partition("/")[0] in _OPTIMIZER]
    budget = size * _RATIO
    for name, dataset in datasets:
        if name.partition("/")[0] in _OPTIMIZER:
            continue
        budget -= dataset.nbytes
        if budget < 0 or dataset.external or dataset.is_virtual:
            raise InputError(f"{where}: {name[:80]!r} is kept elsewhere, or too large for the file")
        array = dataset[()]
        if dataset.attrs.get("dtype") == "bfloat16":
            data = array.tobytes()
            values.append((name, raw_bytes(name, "BF16", dataset.shape, [data])))
        else:
            values.append((name, array))
    return values, left
