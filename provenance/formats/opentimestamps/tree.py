"""The tree of an OpenTimestamps proof: messages, and what leads from one to the next.

WARNING: FROZEN FORMAT, drawn in :mod:`provenance.formats.opentimestamps.file`. No I/O, no
clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from provenance.errors import InputError, TooLargeError
from provenance.formats.opentimestamps.operations import Attestation, Operation, rank, varbytes

MAX_OPERATIONS: Final = 255
"""On one walk from the digest to an attestation."""
_FORK: Final = 0xFF


class Timestamp:
    """All that is known of one message: what attests to it, and operations that lead on.

    A value: it does not change, and equals another with the same message and bytes.

    Args:
        message: At most 4,096 bytes.
        attestations: Of this very message, in any order.
        branches: By operation what is known of its result.
    """

    __slots__ = ("attestations", "branches", "message")

    def __init__(
        self,
        message: bytes,
        attestations: Iterable[Attestation] = (),
        branches: Iterable[tuple[Operation, Timestamp]] = (),
    ) -> None:
        self.message: Final = message
        ours, onward = tuple(attestations), tuple(branches)
        if len(ours) > 1:
            ours = tuple(sorted(set(ours), key=rank))
        if len(onward) > 1:
            onward = tuple(sorted(onward, key=lambda branch: branch[0]))
        self.attestations: Final = ours
        self.branches: Final = onward

    @classmethod
    def of_walk(
        cls, message: bytes, walk: Iterable[Operation], end: Attestation | Timestamp
    ) -> Timestamp:
        """One walk from ``message``, with what is at its end.

        Args:
            end: What attests to the last message, or all that is known of it.

        Raises:
            InputError: ``end`` is of another message.
            TooLargeError: A message becomes longer than 4,096 bytes.
        """
        passed: list[tuple[bytes, Operation]] = []
        for operation in walk:
            passed.append((message, operation))
            message = operation.apply(message)
        if not isinstance(end, Timestamp):
            end = cls(message, (end,))
        if end.message != message:
            raise InputError(f"the walk leads to {message.hex()}, not to {end.message.hex()}")
        for before, operation in reversed(passed):
            end = cls(before, (), ((operation, end),))
        return end

    def walk(self) -> Iterator[tuple[bytes, Attestation]]:
        """Every attestation of the tree with the message it is of."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            for attestation in node.attestations:
                yield node.message, attestation
            waiting.extend(child for _, child in reversed(node.branches))

    def merge(self, other: Timestamp) -> Timestamp:
        """What either knows of the message.

        Raises:
            InputError: They are of different messages.
        """
        if self.message != other.message:
            raise InputError(
                f"timestamps of {self.message.hex()} and of {other.message.hex()} do not merge"
            )
        branches = dict(self.branches)
        for operation, theirs in other.branches:
            mine = branches.get(operation)
            branches[operation] = theirs if mine is None else mine.merge(theirs)
        attestations = (*self.attestations, *other.attestations)
        return Timestamp(self.message, attestations, branches.items())

    def extend(self, continuation: Timestamp, instead_of: Attestation | None = None) -> Timestamp:
        """This tree with more known of one of its messages, wherever it stands.

        Args:
            instead_of: An attestation of that message which the continuation makes good.
        """
        attestations = self.attestations
        if self.message == continuation.message:
            attestations = tuple(each for each in attestations if each != instead_of)
        branches = []
        for operation, child in self.branches:
            branches.append((operation, child.extend(continuation, instead_of)))
        node = Timestamp(self.message, attestations, branches)
        return node.merge(continuation) if self.message == continuation.message else node

    def encode(self) -> bytes:
        """The bytes of the tree, without the message.

        Raises:
            InputError: A node without attestations and operations.
            TooLargeError: A walk of more than 255 operations.
        """
        out = bytearray()
        _write(self, out, 0)
        return bytes(out)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Timestamp):
            return NotImplemented
        return (self.message, self.encode()) == (other.message, other.encode())

    def __hash__(self) -> int:
        return hash((self.message, self.encode()))

    def __repr__(self) -> str:
        kinds = ", ".join(type(attestation).__name__ for _, attestation in self.walk())
        return f"Timestamp({self.message.hex()}: {kinds})"


def _write(node: Timestamp, out: bytearray, depth: int) -> None:
    while True:
        if depth > MAX_OPERATIONS:
            raise TooLargeError(f"a walk of more than {MAX_OPERATIONS} operations")
        attestations = [_encoded(attestation) for attestation in node.attestations]
        if not node.branches:
            if not attestations:
                raise InputError(f"nothing is known of message {node.message.hex()}")
            out += b"".join(b"\xff" + each for each in attestations[:-1]) + attestations[-1]
            return
        out += b"".join(b"\xff" + each for each in attestations)
        for operation, child in node.branches[:-1]:
            out.append(_FORK)
            _write_operation(operation, out)
            _write(child, out, depth + 1)
        operation, node = node.branches[-1]
        _write_operation(operation, out)
        depth += 1


def _encoded(attestation: Attestation) -> bytes:
    return b"\x00" + attestation.tag + varbytes(attestation.payload)


def _write_operation(operation: Operation, out: bytearray) -> None:
    out.append(operation.tag)
    if operation.argument:
        out += varbytes(operation.argument)
