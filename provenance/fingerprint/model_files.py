"""The weights in an untrusted file or folder: nothing is ever unpickled.

``.safetensors`` and ``.npz`` are read by :mod:`provenance.fingerprint.weight_files`; ``.pt``,
``.pth``, ``.bin`` and ``.ckpt`` by ``torch.load(weights_only=True)``, which makes tensors and
plain values alone; ``.keras`` and ``.h5`` by h5py; a booster's ``.json``, ``.ubj``, ``.txt`` and
``.cbm``, where it is given by itself, by its library in a process with limits
(:func:`.fitted.boosters.booster_file`). In a folder count the files at its top:

1. those that an index names (``model.safetensors.index.json``, else
   ``pytorch_model.bin.index.json``): together they are one state. The index itself may be given,
   too;
2. else the safetensors files, which together are one state, and each alone;
3. else the one other file that holds weights, by its name.

A torch file often holds more than the state: a mapping in it, such as ``state_dict`` or
``model_state_dict``, is a state too where all that it holds are tensors. What else may be weights,
in the file or at the top of the folder, is named, in formats that are not read and capitals too.
What trainers put beside a state is set aside, and named as that: in the file an optimizer's state
by what it holds, and a generator's; in the folder ``optimizer.pt``, ``rng_state.pth`` and the like,
unread.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from provenance.errors import FormatError, InputError
from provenance.files import errors_of
from provenance.fingerprint.arrays import RawTensor, is_array, is_torch_tensor, load
from provenance.fingerprint.fitted import boosters
from provenance.fingerprint.hashers import HashFactory
from provenance.fingerprint.named import MAX_DEPTH, MORE_THAN_TENSORS, Named, named_values
from provenance.fingerprint.networks import keras_files
from provenance.fingerprint.tensors import StateDigest, state_digest, state_tensors
from provenance.fingerprint.weight_files import open_zip, safetensors_tensors_file
from provenance.formats import json_text
from provenance.formats.record import Json

SAFETENSORS: Final = ".safetensors"
TORCH: Final = (".pt", ".pth", ".bin", ".ckpt")
KERAS: Final = keras_files.SUFFIXES
SUFFIXES: Final = (SAFETENSORS, *TORCH, ".npz", *KERAS)
PICKLES: Final = (".pkl", ".pickle", ".joblib")
INDEX: Final = "model.safetensors.index.json"
INDEXES: Final = (INDEX, "pytorch_model.bin.index.json")
_INDEX_SUFFIX: Final = ".index.json"
MAX_INDEX_BYTES: Final = 64 * 1024**2

_INDEX_LIMITS: Final = json_text.Limits(1000, 1_000_000)
_MAX_VALUES: Final = 1_000_000
_MAX_RATIO: Final = 1032
"""Bytes of tensors for each byte of torch's file, as deflate makes at most of one (RFC 1951)."""
_UNREAD: Final = (
    ".ubj", ".cbm", ".gguf", ".ggml", ".onnx", ".onnx_data", ".msgpack", *PICKLES,
    ".tflite", ".npy", ".pb", ".pdparams", ".mlmodel", ".engine", ".pte",
)  # fmt: skip
"""Suffixes of weights that are named where they lie beside others, and not read."""
_BESIDE: Final = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|random_states|training_args)(_\d+)?"
)
_GENERATOR: Final = re.compile(r"(.*_)?(rng|random)(_.*)?", re.DOTALL)
_OPTIMIZER: Final = {"state", "param_groups"}
_SAFE_TORCH: Final = (2, 6)
# What torch and its unpickler raise for bytes that are no checkpoint of tensors.
_TORCH_ERRORS: Final = (
    pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, ArithmeticError, EOFError, ImportError, MemoryError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What may be the model's state, by its key in the file; ``""`` is the whole.

    Attributes:
        keys: Those in the file that hold tensors, and not what trainers put beside a state.
        others: Names of weights files at the top of the folder beside ``files``.
        aside: What trainers put beside a state, in words.
        folder: Where the files lie; None where a file was given.
    """

    files: tuple[Path, ...]
    states: Mapping[str, object]
    keys: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    folder: Path | None = None

    def left(self, found: Collection[str]) -> list[str]:
        """What else holds weights where these states were found, each as ``name: problem``."""
        unread = "was not compared"
        keys = [key for key in self.keys if key not in found and "" not in found]
        why = dict.fromkeys(self.states, "has weights of no record")
        left = [f"{key[:80]!r}: {why.get(key, unread)}" for key in keys]
        return left + [f"{name}: {unread}" for name in self.others]

    def below(self) -> list[str]:
        """Weights files in subfolders, which are not looked at, such as a trainer's checkpoints.
        Raises InputError: a subfolder cannot be listed."""
        if self.folder is None:
            return []
        found = []
        for parent, _, names in os.walk(self.folder, onerror=_cannot_list):
            place = Path(parent).relative_to(self.folder)
            if place.parts and place.parts[0] != ".git":
                found += [(place / name).as_posix() for name in names if _is_weights(name)]
        return sorted(found)

    def digests(self, factory: HashFactory) -> dict[str, StateDigest]:
        """The digest of each state; ``InputError`` where something is no dense array of numbers,
        ``FormatError`` for a file that does not decode."""
        return {key: state_digest(state, factory) for key, state in self.states.items()}

    def tensors(self, key: str) -> Iterator[RawTensor]:
        """The tensors of a state, each to be read before the next; errors as `digests`."""
        return state_tensors(self.states[key])


def read_model(path: Path, mapped: bool = True) -> ModelFiles:
    """The weights in a file, or at the top of a folder. ``InputError`` where nothing holds weights,
    or no saying which file does; ``FormatError`` for a file that holds more than tensors;
    ``MissingExtraError`` where torch or NumPy is needed. ``mapped``: torch's files are mapped into
    memory, not read into it."""
    files = weights_files(path)
    kind, keys, aside = files[0].suffix, list[str](), list[str]()
    states: Mapping[str, object]
    if kind == SAFETENSORS:
        states = {"": _merged(files)}
        if len(files) > 1 and path.is_dir() and not (path / INDEX).is_file():
            keys = [file.name for file in files]
            states |= {file.name: _merged((file,)) for file in files}
    elif kind == ".npz" or kind in boosters.SUFFIXES:
        states = {"": str(files[0])}
    elif kind in KERAS:
        states = {"": keras_files.keras_values_file(str(files[0]))}
    elif len(files) > 1:
        states = {
            "": _together(files, [_states(file, _torch_load(file, mapped))[0] for file in files])
        }
    else:
        states, keys, aside = _states(files[0], _torch_load(files[0], mapped))
    if not path.is_dir():
        return ModelFiles(files, states, tuple(keys), aside=tuple(aside))
    names = [name for name in _names(path) if name not in {file.name for file in files}]
    others = tuple(name for name in names if _is_weights(name))
    aside += [f"{name}: unread" for name in names if _is_weights(name, beside=True)]
    return ModelFiles(files, states, tuple(keys), others, tuple(aside), path)


def the_state(path: str, mapped: bool = True) -> Named:
    """The one state in a file or folder, and which one it is. Raises InputError: there are several;
    as `read_model`."""
    model = read_model(Path(path), mapped)
    key = "" if "" in model.states else next(iter(model.states))
    if key and len(model.states) > 1:
        keys = ", ".join(map(repr, list(model.states)[:5]))
        raise InputError(f"{path}: several states: {keys}; expected one, or load and give one")
    state = model.states[key]
    named = state if isinstance(state, Named) else named_values(state)
    kind = model.files[0].suffix.lstrip(".")
    covers: dict[str, Json] = {"adapter": f"{kind} file", "of": ["tensors"]}
    covers |= {key: value for key, value in named.covers.items() if key in ("not", "state")}
    if key:
        covers["state"] = key
    if len(model.files) > 1:
        covers["files"] = [file.name for file in model.files]
    return named._replace(covers=covers)


def _together(files: tuple[Path, ...], states: list[dict[str, Named]]) -> Named:
    """The states of torch's shards as one."""
    values: list[tuple[str, Any]] = []
    for file, state in zip(files, states, strict=True):
        if "" not in state:
            raise InputError(f"{file}: holds more than tensors, expected a shard of a state_dict")
        values += state[""].values
    return Named(values, {"adapter": "bin file", "of": ["tensors"]}, ties=True)


def weights_files(path: Path) -> tuple[Path, ...]:
    """The files that hold the weights, by the rules above; errors as `read_model`."""
    if path.is_file():
        if path.name.endswith(_INDEX_SUFFIX):
            return _indexed(path)
        known = (*SUFFIXES, *boosters.SUFFIXES)
        if path.suffix not in known:
            pickled = "a pickle runs code when it is read and is never opened; "
            why = pickled if path.suffix in PICKLES else ""
            raise InputError(f"{path}: {why}expected a name in {', '.join(known)}, or a folder")
        return (path,)
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    for index in INDEXES:
        if (path / index).is_file():
            return _indexed(path / index)
    names = [n for n in _names(path) if _is_weights(n) and Path(n).suffix in SUFFIXES]
    shards = [path / name for name in names if name.endswith(SAFETENSORS)]
    if shards:
        return tuple(shards)
    if not names:
        raise InputError(f"{path}: no file with weights in it, expected {', '.join(SUFFIXES)}")
    if len(names) > 1:
        several = f"several files may hold the weights: {', '.join(names[:5])}"
        raise InputError(f"{path}: {several}; give one of them")
    return (path / names[0],)


def _names(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        _cannot_list(error)


def _cannot_list(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror or error}") from error


def _is_weights(name: str, beside: bool = False) -> bool:
    """Whether a file holds weights, by its name; or is what trainers put ``beside`` them."""
    path = Path(name.lower())
    if path.suffix not in (*SUFFIXES, *_UNREAD):
        return False
    return beside == bool(path.suffix != SAFETENSORS and _BESIDE.fullmatch(path.stem))


def _indexed(where: Path) -> tuple[Path, ...]:
    """The shards that the index names: all of them must be there."""
    folder = where.parent
    kind = SAFETENSORS if where.name.endswith(f"{SAFETENSORS}{_INDEX_SUFFIX}") else ".bin"
    with errors_of(where, "read"), where.open("rb") as file:
        data = file.read(min(MAX_INDEX_BYTES, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise FormatError(f"{where}: more than {MAX_INDEX_BYTES} bytes")
    try:
        document = json_text.loads(data, limits=_INDEX_LIMITS)
    except ValueError as error:
        raise FormatError(f"{where}: is not JSON: {error}") from error
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise FormatError(f"{where}: no weight_map of tensors to files")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(kind):
            raise FormatError(f"{where}: names {repr(name)[:80]}, expected a {kind[1:]} file")
        if not (folder / name).is_file():
            raise InputError(f"{where}: names {repr(name)[:80]}, which is missing")
    return tuple(folder / name for name in sorted(set(shards.values())))


def _merged(files: tuple[Path, ...]) -> dict[str, RawTensor]:
    """The tensors of all shards; nothing is read yet but the headers."""
    tensors: dict[str, RawTensor] = {}
    owner: dict[str, Path] = {}
    for file in files:
        for tensor in safetensors_tensors_file(file):
            if tensor.name in tensors:
                twice = f"tensor {tensor.name!r} is in {owner[tensor.name].name} too"
                raise InputError(f"{file}: {twice}; give one of the files")
            tensors[tensor.name], owner[tensor.name] = tensor, file
    if not tensors:
        raise InputError(f"{files[0]}: no tensors, expected at least one")
    return tensors


def _torch_load(path: Path, mapped: bool) -> object:
    torch = load("torch", "torch")
    version = tuple(int(part) for part in re.findall(r"\d+", str(torch.__version__))[:2])
    if version < _SAFE_TORCH:
        raise InputError(
            f"{path}: torch {torch.__version__} can be made to run code by such a file "
            "(CVE-2025-32434), expected torch 2.6 or later, or a .safetensors file"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About the file's age; what matters is raised.
            zipped = zipfile.is_zipfile(path)
            if zipped:  # torch.save packs nothing
                open_zip(path, str(path), (zipfile.ZIP_STORED,)).close()
            mapped &= zipped
            loaded: object = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _TORCH_ERRORS as error:
        raise FormatError(
            f"{path}: cannot be read as tensors alone: it is damaged, or holds pickled objects, "
            "which are never loaded; expected torch.save(model.state_dict(), ...)"
        ) from error
    return loaded


def _states(path: Path, loaded: object) -> tuple[dict[str, Named], list[str], list[str]]:
    """The states in a torch file, the keys that hold weights, and what is set aside."""
    budget, searched = iter(range(_MAX_VALUES)), iter(range(_MAX_VALUES))
    states: dict[str, Named] = {}
    keys: list[str] = []
    aside: list[str] = []
    if (whole := _state(loaded, budget)) is not None:
        states[""] = whole
    if isinstance(loaded, Mapping):
        left = [str(key) for key in loaded]
        if len(set(left)) < len(left):
            raise InputError(f"{path}: a number and a text are one key, expected names that differ")
        for key, value in zip(left, loaded.values(), strict=True):
            state = _state(value, budget) if isinstance(value, Mapping) else None
            if state is not None and key and key not in states:
                others: list[Json] = [name for name in left if name != key]
                about: dict[str, Json] = {"not": {"beside it": others}} if others else {}
                states[key] = state._replace(covers={**state.covers, **about})
            arrays = set[str]()
            if _has_weights(key, value, searched, arrays):
                keys.append(key)
            elif arrays:
                aside.append(f"{key[:80]!r}: state of {' and '.join(sorted(arrays))}")
    if not states:
        raise InputError(f"{path}: no mapping of names to tensors in it, expected a state_dict")
    size = path.stat().st_size
    for state in states.values():  # a tensor may repeat one element without end
        tensors = (value for _, value in state.values if is_torch_tensor(value))
        nbytes = sum(value.nbytes for value in tensors if not value.is_sparse)
        if nbytes > _MAX_RATIO * size:
            raise FormatError(f"{path}: tensors of {nbytes} bytes in a file of {size}")
    return states, keys, aside


def _has_weights(
    key: str, value: Any, budget: Iterator[int], aside: set[str], depth: int = 0
) -> bool:
    """Whether a value holds an array with a dimension that is neither an optimizer's nor a random
    generator's, which are added to ``aside``; true where that is not found out."""
    if depth > MAX_DEPTH or next(budget, None) is None:
        return True
    if is_array(value):
        if value.ndim == 1 and "uint" in str(value.dtype) and _GENERATOR.fullmatch(key):
            aside.add("a generator")
            return False
        return bool(value.ndim)
    inside = value if isinstance(value, list | tuple | set | frozenset) else ()
    items = ((key, item) for item in inside)
    if isinstance(value, Mapping):
        if value.keys() == _OPTIMIZER:
            aside.add("an optimizer")
            return False
        own = _GENERATOR.fullmatch(key)
        items = ((key if own else str(name), item) for name, item in value.items())
    return any(_has_weights(name, item, budget, aside, depth + 1) for name, item in items)


def _state(value: Any, budget: Iterator[int]) -> Named | None:
    """A state dict; None for what is none. Beside tensors it may hold what torch puts into one:
    packed parameters of quantised layers, and extra state."""
    tensors, more = value, None
    if isinstance(value, Mapping):
        more = {k: v for k, v in value.items() if str(k).endswith(MORE_THAN_TENSORS)}
        tensors = {k: v for k, v in value.items() if k not in more}
    if _holds(tensors, budget, False) and (not more or _holds(more, budget, True)):
        return named_values(value)
    return None


def _holds(value: Any, budget: Iterator[int], plain: bool, depth: int = 0) -> bool:
    """Whether arrays are all that it holds, or ``plain`` values too. A few bytes can name one list
    a thousand times, and that list another: each place counts against the budget."""
    if depth > MAX_DEPTH or next(budget, None) is None:
        return False
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return plain or is_array(value)
    whole = all(_holds(item, budget, plain, depth + 1) for item in value)
    return whole and (plain or bool(value))
