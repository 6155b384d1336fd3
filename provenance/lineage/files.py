"""What a model's files have of its parents' files, entry by entry: pruned, quantised, merged.

These are statements about the elements, which no digest shows. They take tensors with the same
name and shape, and but for *quantised* the same element type; F64, F32, F16 and BF16 are numbers.

- *pruned*: an entry is zero, or has the bits of the parent's entry.
- *quantised*: an entry of another of these types is the parent's entry x, rounded once to it. Of
  the entries q of I8 there is a scale s > 0 so that |x / s - q| <= 1/2 for each, but for |q| of 127
  and more, where x may be farther out; one s for the tensor, or one for each row, of `ROW` entries
  and more, of its first dimension. How s was rounded is not known: its bounds may cross by `SLACK`
  of their size. Where every q is 0, and some x is not, nothing shows.
- *merged*: one number a(i) for each parent i, the same for all tensors, so that each entry c is
  the sum of a(i) * x(i). An entry holds to the bit where c is that sum, in double precision,
  rounded once to c's type, or the sum of the products, each rounded to that type, rounded again
  (as a program computes it in that type). It holds within 1 ulp where it differs from one of the
  two by at most the distance of two neighbours of c's type at the largest of all |a(i) * x(i)| and
  |c|. The a(i) are the least squares over a sample, in 2, 3, 4 or 6 decimals or as they are, each
  in double or single precision or rounded to a type of the tensors: the first of these with most
  entries of the sample to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from provenance.errors import InputError
from provenance.fingerprint.arrays import RawTensor, load_numpy
from provenance.fingerprint.model_files import ModelFiles
from provenance.verify.findings import counted

CHUNK: Final = 1 << 20
"""Entries that are compared at once."""
MAX_PARENTS: Final = 8
SAMPLE: Final = 4096
"""Entries of a tensor that the numbers a(i) are worked out from."""
ROW: Final = 16
"""Entries that a scale of their own is taken for: of one or two, any."""
SLACK: Final = 2.0**-20
_FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_DECIMALS: Final = (2, 3, 4, 6)
Array = Any


class Pruned(NamedTuple):
    """Entries of the tensors that both have: those of the parent, zeros (where the parent's is
    another), and all others; and how many tensors they are of."""

    kept: int
    zeroed: int
    other: int
    tensors: int

    @property
    def contradiction(self) -> str | None:
        """Why the one cannot be pruned from the other; None where it can."""
        if not self.other:
            return None
        return f"{self.other} of {sum(self[:3])} entries are neither zero nor the parent's"

    @property
    def holds(self) -> bool:
        """Whether entries were set to zero and nothing else was done."""
        return self.zeroed > 0 and not self.other

    @property
    def line(self) -> str:
        """For people."""
        total = sum(self[:3])
        if self.holds:
            return f"pruned: {self.zeroed} of {total} entries are zero, the others are the parent's"
        return f"entries: {self.kept} of {total} are the parent's, bit for bit, {self.zeroed} zero"


class Quantised(NamedTuple):
    """Entries of the tensors that both have in another type: those that are the parent's, rounded;
    by a scale of their tensor; of their index of its first dimension; and all others; and whether
    these are all tensors of both, in a type of floats: methods for I8, and those that store scales
    beside it, round in other ways."""

    rounded: int
    by_tensor: int
    by_row: int
    other: int
    tensors: int
    floats: bool

    @property
    def contradiction(self) -> str | None:
        """Why the one cannot be quantised from the other; None where it can."""
        if not self.other or not self.floats:
            return None
        return f"{self.other} of {sum(self[:4])} entries are not the parent's, rounded"

    @property
    def holds(self) -> bool:
        """Whether all entries are the parent's in another type."""
        return self.tensors > 0 and not self.other

    @property
    def line(self) -> str:
        """For people."""
        total = sum(self[:4])
        parts = (
            (self.rounded, "rounded to the nearest"),
            (self.by_tensor, "by one scale for a tensor"),
            (self.by_row, "by a scale for each row"),
        )
        how = ", ".join(f"{number} {words}" for number, words in parts if number)
        rest = f", {self.other} are not" if self.other else ""
        what = "quantised" if self.holds else "not quantised"
        held = f"{total - self.other} of {total} entries are the parent's"
        return f"{what}: {held}{', ' if how else ''}{how}{rest}"


class Merged(NamedTuple):
    """Entries that are the linear combination to the bit, within 1 ulp, and not; and the names of
    tensors that cannot be compared."""

    numbers: tuple[float, ...]
    exact: int
    near: int
    other: int
    left: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all tensors are the combination."""
        return self.exact + self.near > 0 and not self.other and not self.left

    @property
    def line(self) -> str:
        """For people; the parents are A, B, ... in their order."""
        terms = [f"{a:.9g} * {chr(65 + at)}" for at, a in enumerate(self.numbers)]
        total = self.exact + self.near + self.other
        counts = f"{self.exact} of {total} entries to the bit, {self.near} within 1 ulp"
        rest = f", {self.other} not" if self.other else ""
        left = ""
        if self.left:
            number = counted(len(self.left), "tensor")
            left = f"; {number} not compared, such as {self.left[0]!r:.60}"
        what = "merge" if self.holds else "no merge"
        return f"{what}: {' + '.join(terms)}: {counts}{rest}{left}"


def tensors_of(files: ModelFiles) -> dict[str, tuple[str, tuple[int, ...], Array]]:
    """Element type, shape and flat elements by name; BF16 as its bits. What lies in memory or in a
    safetensors file is not copied. InputError: several states, or no tensors."""
    if "" not in files.states:
        raise InputError(f"{files.files[0]}: several states, expected one")
    numpy = load_numpy()
    found = {}
    for raw in files.tensors(""):
        kind = _FLOATS.get(raw.dtype, "u1")
        found[raw.name] = raw.dtype, tuple(raw.shape), numpy.frombuffer(_bytes(raw), kind)
    return found


def _bytes(raw: RawTensor) -> Any:
    if raw.memory is None:  # a piece holds until the next is asked for
        return b"".join(map(bytes, raw.chunks()))
    return next(raw.chunks(), b"")


Tensors = Mapping[str, tuple[str, tuple[int, ...], Array]]


def pruned(child: Tensors, parent: Tensors) -> Pruned:
    """The child's entries held against the parent's."""
    kept = zeroed = other = tensors = 0
    for name, (dtype, shape, own) in child.items():
        if dtype not in _FLOATS or name not in parent or parent[name][:2] != (dtype, shape):
            continue
        tensors += 1
        for (mine,), (theirs,) in zip(_pieces(own), _pieces(parent[name][2]), strict=True):
            same = _bits(mine) == _bits(theirs)
            zero = ~same & (_numbers(mine, dtype) == 0)
            kept, zeroed = kept + int(same.sum()), zeroed + int(zero.sum())
            other += int((~same & ~zero).sum())
    return Pruned(kept, zeroed, other, tensors)


def quantised(child: Tensors, parent: Tensors) -> Quantised:
    """The child's entries of another type held against the parent's."""
    numpy = load_numpy()
    rounded = by_tensor = by_row = other = tensors = 0
    floats = child.keys() == parent.keys()
    for name, (dtype, shape, own) in child.items():
        kind, size, theirs = parent.get(name, ("", (), None))
        if kind not in _FLOATS or dtype not in (_FLOATS.keys() | {"I8"}) - {kind} or size != shape:
            same = (kind, size) == (dtype, shape) and numpy.array_equal(own, theirs)
            floats = floats and same  # such as a counter
            continue
        tensors += 1
        if dtype in _FLOATS:
            for mine, x in _pieces(own, theirs):
                with numpy.errstate(all="ignore"):
                    number, near = _numbers(mine, dtype), _rounded(_numbers(x, kind), dtype)
                equal = (number == near) | (numpy.isnan(number) & numpy.isnan(near))
                rounded, other = rounded + int(equal.sum()), other + int((~equal).sum())
            continue
        floats = False
        row = len(own) // shape[0] if len(shape) > 1 and len(own) else len(own)
        step = row * max(1, CHUNK // max(1, row))
        bounds = [
            _scales(
                own[at : at + step].view("<i1").reshape(-1, row),
                _numbers(theirs[at : at + step], kind),
            )
            for at in range(0, len(own), max(1, step))
        ]
        if not bounds:
            continue
        least, most = (numpy.concatenate(each) for each in zip(*bounds, strict=True))
        held = (least <= most * (1 + SLACK)) & numpy.isfinite(least)
        if held.all() and least.max() <= most.min() * (1 + SLACK):
            by_tensor += len(own)
        else:
            number = int(held.sum()) * row if row >= ROW else 0
            by_row, other = by_row + number, other + len(own) - number
    return Quantised(rounded, by_tensor, by_row, other, tensors, floats)


def _scales(q: Array, x: Array) -> tuple[Array, Array]:
    """Of each row of I8 the least and the greatest scale that its entries leave to it."""
    numpy = load_numpy()
    x = x.reshape(q.shape)
    steps, size = numpy.sign(x) * q.astype("<f8"), abs(x)
    with numpy.errstate(all="ignore"):
        least = numpy.where(steps >= 0, size / (steps + 0.5), numpy.inf)
        least = numpy.where(steps >= 127, 0.0, least)
        least = numpy.where(x == 0, numpy.where(q == 0, 0.0, numpy.inf), least)
        most = numpy.where(steps >= 1, size / (steps - 0.5), numpy.inf)
    shown = (steps >= 1).any(axis=1) | (x == 0).all(axis=1)
    return numpy.where(shown, least.max(axis=1), numpy.inf), most.min(axis=1)


def merged(child: Tensors, parents: Sequence[Tensors]) -> Merged:
    """The child as a linear combination of its parents. InputError: one parent, or too many."""
    if not 2 <= len(parents) <= MAX_PARENTS:
        raise InputError(f"merge: found {len(parents)} models, expected 2 to {MAX_PARENTS}")
    alike = [
        name
        for name, (dtype, shape, _) in child.items()
        if dtype in _FLOATS and all(p.get(name, ("",))[:2] == (dtype, shape) for p in parents)
    ]
    left = tuple(sorted({*child, *(name for p in parents for name in p)} - {*alike}))
    groups = [(child[name][0], child[name][2], [p[name][2] for p in parents]) for name in alike]
    numbers, counts = _combination(groups, len(parents)), [0, 0, 0]
    for dtype, own, others in groups:
        for mine, *theirs in _pieces(own, *others):
            for at, number in enumerate(_judged(dtype, mine, theirs, numbers)):
                counts[at] += number
    return Merged(tuple(map(float, numbers)), counts[0], counts[1], counts[2], left)


Group = tuple[str, Array, list[Array]]


def _combination(groups: Sequence[Group], count: int) -> Sequence[float]:
    """The numbers a(i), from a sample of each tensor."""
    numpy = load_numpy()
    samples = []
    for dtype, own, others in groups:
        every = slice(None, None, max(1, len(own) // SAMPLE))
        samples.append((dtype, own[every], [other[every] for other in others]))
    rows = [[_numbers(each, dtype) for each in (own, *others)] for dtype, own, others in samples]
    columns = [
        numpy.concatenate([row[at] for row in rows]) for at in range(count + 1 if rows else 0)
    ]
    if not columns or not columns[0].size or not all(numpy.isfinite(c).all() for c in columns):
        return [0.0] * count
    found = numpy.linalg.lstsq(numpy.stack(columns[1:], axis=1), columns[0], rcond=None)[0]
    plain = [numpy.round(found, decimals) for decimals in _DECIMALS] + [found]
    types = ("F64", "F32", *sorted({dtype for dtype, _, _ in groups} - {"F64", "F32"}))
    tried = [_rounded(own, dtype) for own in plain for dtype in types]

    def exact(numbers: Array) -> int:
        return sum(_judged(*sample, numbers)[0] for sample in samples)

    best: Sequence[float] = max(tried, key=exact)
    return best


def _judged(
    dtype: str, own: Array, others: Sequence[Array], numbers: Sequence[float]
) -> tuple[int, int, int]:
    """How many entries are the combination to the bit, within 1 ulp, and not."""
    numpy = load_numpy()
    with numpy.errstate(all="ignore"):
        mine = _numbers(own, dtype)
        terms = [a * _numbers(x, dtype) for a, x in zip(numbers, others, strict=True)]
        once, stepwise = _rounded(sum(terms), dtype), _rounded(terms[0], dtype)
        for term in terms[1:]:
            stepwise = _rounded(stepwise + _rounded(term, dtype), dtype)
        exact = (mine == once) | (mine == stepwise)
        largest = numpy.max([abs(mine), *map(abs, terms)], axis=0)
        gap = numpy.minimum(abs(mine - once), abs(mine - stepwise))
        near = ~exact & (gap <= _ulp(largest, dtype))
    return int(exact.sum()), int(near.sum()), int((~exact & ~near).sum())


def _pieces(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    for start in range(0, len(arrays[0]), CHUNK):
        yield tuple(array[start : start + CHUNK] for array in arrays)


def _bits(array: Array) -> Array:
    return array.view(f"<u{array.itemsize}")


def _numbers(array: Array, dtype: str) -> Array:
    """Elements in double precision; a BF16 is the upper half of an F32."""
    if dtype == "BF16":
        array = (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f8")


def _rounded(values: Array, dtype: str) -> Array:
    """Doubles, rounded to the nearest of an element type, ties to even, as doubles."""
    if dtype != "BF16":
        return values.astype(_FLOATS[dtype]).astype("<f8")
    bits = values.view("<u8")
    # A double has 52 bits of fraction, a BF16 seven; the exponents that matter here both have.
    half = (1 << 44) - 1 + ((bits >> 45) & 1)
    return ((bits + half) & ~load_numpy().uint64((1 << 45) - 1)).view("<f8")


def _ulp(values: Array, dtype: str) -> Array:
    numpy = load_numpy()
    if dtype == "BF16":
        return numpy.spacing(values.astype("<f4")).astype("<f8") * 65536
    return numpy.spacing(values.astype(_FLOATS[dtype])).astype("<f8")
