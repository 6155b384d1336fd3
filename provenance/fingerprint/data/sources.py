"""What stands for data without being it: loaders, boosters' matrices, bunches; and what is refused.

No clock, no randomness; no I/O but to ask whether a text names a file. No library is imported: an
object of theirs brings it along.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from provenance.errors import InputError
from provenance.fingerprint.arrays import from_package, is_array, type_name

STREAM: Final = (
    "reading it would consume it, or may not end; pass a list of its items, or add each to"
    " `with tracker.data_stream('train') as add`"
)
_NAME_OF_HUB: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ABOUT: Final = frozenset({"DESCR", "filename", "filenames", "data_filename", "target_filename",
                           "data_module", "url", "details"})  # fmt: skip
"""Entries of scikit-learn's Bunch about the data: descriptions, and paths of the machine."""


def class_names(value: object) -> set[str]:
    """Names of the value's class and of what it inherits from."""
    return {base.__name__ for base in type(value).__mro__}


def resolved(data: Any) -> tuple[Any, tuple[str, ...]]:
    """The data that ``data`` stands for, itself where it is data, and the entries left out. Raises
    InputError: what has no data to read, or cannot be read twice; the message says what to pass
    instead."""
    names = class_names(data)
    if is_hf_stream(data):
        return data.with_format(None), ()
    if from_package(data, "pandas"):
        if "MultiIndex" in names:
            return data.to_frame(index=False), ()
        if names.isdisjoint({"DataFrame", "Series", "Index", "ExtensionArray"}):
            raise InputError(f"data: found {type_name(data)}, expected a frame, or a column of one")
    if from_package(data, "torch.utils.data"):
        if "DataLoader" in names:
            return resolved(data.dataset)
        if type(data).__name__ == "Subset" and is_hf(data.dataset):
            return data.dataset.select(data.indices), ()
        if "IterableDataset" in names:
            raise InputError(f"data: found {type_name(data)}: {STREAM}")
    if "RecordBatchReader" in names and from_package(data, "pyarrow"):
        raise InputError(
            f"data: found {type_name(data)}: reading it would consume it; pass what its"
            " read_all() gives, and train on that"
        )
    if from_package(data, "sklearn.utils") and "Bunch" in names:
        present = {key: value for key, value in data.items() if value is not None}
        kept = {key: value for key, value in present.items() if key not in _ABOUT}
        return kept, tuple(sorted(set(present) - set(kept)))
    for package, read in _BOOSTERS.items():
        if from_package(data, package):
            return read(data, names), ()
    if from_package(data, "tensorflow") and not is_array(data):
        raise InputError(f"data: found {type_name(data)}: {STREAM}")
    if isinstance(data, Iterator) and not hasattr(data, "__getitem__"):
        raise InputError(f"data: found {type_name(data)}: {STREAM}")
    return data, ()


def unreadable(error: Exception) -> InputError:
    """What the code of a dataset raised, in one line."""
    if isinstance(error, RecursionError):
        return InputError("data: nested without end")
    reason = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
    return InputError(f"data: cannot be read: {reason}")


def names_a_file(item: object) -> bool:
    """Whether an item of a list is a text that is the path of a file here."""
    return isinstance(item, str) and len(item) < 4096 and "\0" not in item and os.path.isfile(item)


def hint(name: str) -> str:
    """What to do about a text that is no path."""
    if any(char in name for char in "*?{["):
        return "; a pattern is no path: pass a list of Path"
    if _NAME_OF_HUB.fullmatch(name) and not os.path.splitext(name)[1]:
        return f"; if it names data of a hub, load it and pass that: load_dataset({name!r})"
    return ""


def is_hf(value: object) -> bool:
    """True for a Dataset of Hugging Face."""
    return from_package(value, "datasets") and hasattr(value, "with_format") and (
        "Dataset" in class_names(value)
    )  # fmt: skip


def is_hf_stream(value: object) -> bool:
    """True for an IterableDataset of Hugging Face."""
    return from_package(value, "datasets") and "IterableDataset" in class_names(value)


def _xgboost(data: Any, names: set[str]) -> Mapping[str, object]:
    if "DMatrix" not in names:
        raise InputError(f"data: found {type_name(data)}, expected xgboost.DMatrix")
    if type(data).__name__ != "DMatrix":
        raise InputError(
            f"data: found {type_name(data)}: it has bins, not the data; pass what it was made of"
        )
    if "c" in (data.feature_types or ()):
        raise InputError(
            "data: found xgboost.DMatrix with categories, of which it has codes alone; pass the"
            " frame that it was made of"
        )
    from provenance.fingerprint.data.blocks import Stored

    entries: dict[str, object] = {"data": Stored(data.get_data()), "label": data.get_label()}
    entries |= {"weight": data.get_weight(), "base_margin": data.get_base_margin()}
    fields = ("label_lower_bound", "label_upper_bound", "feature_weights")
    entries |= {field: data.get_float_info(field) for field in fields}
    entries["group_ptr"] = data.get_uint_info("group_ptr")
    entries["feature_names"] = data.feature_names
    return _there(entries)


def _lightgbm(data: Any, names: set[str]) -> Mapping[str, object]:
    if "Dataset" not in names:
        raise InputError(f"data: found {type_name(data)}, expected lightgbm.Dataset")
    if data.data is None or isinstance(data.data, str) or data.used_indices is not None:
        raise InputError(
            "data: found lightgbm.Dataset without its raw data (freed, a path, or a subset); pass"
            " what it was made of"
        )
    fields = ("data", "label", "weight", "group", "init_score", "position")
    return _there({field: getattr(data, field, None) for field in fields})


def _catboost(data: Any, names: set[str]) -> Mapping[str, object]:
    raise InputError(
        f"data: found {type_name(data)}: it does not give all that it has; pass what it was made"
        " of, such as (x, y)"
    )


def _there(entries: Mapping[str, Any]) -> Mapping[str, object]:
    return {key: value for key, value in entries.items() if value is not None and not _bare(value)}


def _bare(value: Any) -> bool:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return 0 in shape
    return isinstance(value, list) and not value


_BOOSTERS: Final = {"xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}
