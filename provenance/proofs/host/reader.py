"""Fields of a vendor's structure, front to back, to the last byte."""

from __future__ import annotations

from typing import Literal, Self

from provenance.errors import FormatError, TrailingBytesError, TruncatedError


class Reader:
    """The errors are of :class:`FormatError`, and name the structure."""

    def __init__(self, data: bytes, what: str, order: Literal["big", "little"] = "big") -> None:
        self._data, self.at, self._what, self._order = data, 0, what, order

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        end = self.at + size
        if end > len(self._data):
            raise TruncatedError(f"{self._what}: ends at byte {len(self._data)}, expected {end}")
        taken, self.at = self._data[self.at : end], end
        return taken

    def integer(self, size: int) -> int:
        """A number of ``size`` bytes."""
        return int.from_bytes(self.take(size), self._order)

    def one_of(self, size: int, known: tuple[int, ...], name: str) -> int:
        """A number that is among ``known``."""
        found = self.integer(size)
        if found not in known:
            expected = ", ".join(f"{value:0{size * 2}x}" for value in known)
            raise FormatError(f"{self._what}: {name} {found:0{size * 2}x}, expected {expected}")
        return found

    def sized(self, most: int = 512, prefix: int = 2) -> bytes:
        """``prefix`` bytes of length, then as many: a TPM2B, where they are two."""
        size = self.integer(prefix)
        if size > most:
            raise FormatError(f"{self._what}: a field of {size} bytes, at most {most}")
        return self.take(size)

    def part(self, what: str, most: int, prefix: int) -> Self:
        """What a field of that form holds, to be read in turn."""
        return type(self)(self.sized(most, prefix), f"{self._what}: {what}", self._order)

    def end(self) -> None:
        """Refuse what is left."""
        if self.at != len(self._data):
            raise TrailingBytesError(f"{self._what}: {len(self._data) - self.at} bytes behind it")
