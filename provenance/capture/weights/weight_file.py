"""Digest of a checkpoint file, in a process of its own, which runs this module.

Whoever cuts a file off while it is mapped into memory ends the process that reads it (SIGBUS):
that must not be the training. One of torch's that the training waits for is read into memory
instead where torch is loaded: a process would load it for a second or more. Nor is a digest of a
file worth anything that changes meanwhile: :meth:`WeightFile.digest` refuses one that is no longer
what it was.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from provenance.errors import InputError, ProvenanceError

TICK_S: Final = 0.02
"""Longer than the step of a file's times (a clock tick, 10 ms at most)."""
_PACKAGE_ROOT: Final = str(Path(__file__).resolve().parents[2])


class WeightFile(NamedTuple):
    """A file as it is now.

    Attributes:
        path: Absolute.
        identity: Device, inode, size and times: what changes when it is replaced or written to.
    """

    path: str
    identity: tuple[int, ...]

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> WeightFile:
        """The file at ``path``. Raises InputError: it is missing, or neither a file nor a folder: a
        pipe's reader would wait."""
        from provenance.fingerprint.data.remote import is_url, without_secrets

        if isinstance(path, str) and is_url(path):
            shown = without_secrets(path)
            raise InputError(f"model file {shown!r}: found a URL, expected a file of this host")
        where = os.path.abspath(os.fsdecode(path))
        try:
            # The file that a link such as "last.ckpt" leads to now, by a name that tells its kind.
            behind = os.path.realpath(where)
            if os.path.splitext(behind)[1] == os.path.splitext(where)[1]:
                where = behind
            now = os.stat(where)
        except (OSError, ValueError) as error:  # a zero byte
            reason = getattr(error, "strerror", error)
            raise InputError(f"model file {where!r}: {reason}") from error
        if not (stat.S_ISREG(now.st_mode) or stat.S_ISDIR(now.st_mode)):
            raise InputError(f"model file {where!r}: is neither a file nor a folder")
        times = (now.st_mtime_ns, now.st_ctime_ns)
        return cls(where, (now.st_dev, now.st_ino, now.st_size, *times))

    def digest(self, algorithm: str, here: bool = False) -> dict[str, Any]:
        """The state's fields, as ``StateDigest.as_fields()`` has them.

        Args:
            here: The caller waits: a file of torch's may be read by this process, in memory.

        Raises:
            InputError: It cannot be read, has no tensors, or is no longer the file that it was.
        """
        import subprocess

        time.sleep(TICK_S)  # a write from now on shows in the times
        self._refuse_change()
        if here and "torch" in sys.modules:
            from provenance.fingerprint.model_files import TORCH

            if self.path.endswith(TORCH):
                return self._read_here(algorithm)
        module = "provenance.capture.weights.weight_file"  # which may run as __main__ here
        done = subprocess.run(
            [sys.executable, "-P", "-m", module, self.path, algorithm],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([_PACKAGE_ROOT, *sys.path])},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        self._refuse_change()
        if done.returncode != 0:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            ended = f"model file {self.path!r}: its reader ended with {done.returncode}"
            raise InputError(lines[-1][:500] if lines else ended)
        fields: dict[str, Any] = json.loads(done.stdout)
        return fields

    def _read_here(self, algorithm: str) -> dict[str, Any]:
        from provenance.fingerprint.hashers import HashFactory
        from provenance.fingerprint.model_files import the_state
        from provenance.fingerprint.tensors import state_digest

        try:
            found = state_digest(the_state(self.path, mapped=False), HashFactory(algorithm))
        except ProvenanceError as error:
            self._refuse_change()
            raise InputError(str(error)) from error
        self._refuse_change()
        return found.as_fields()

    def _refuse_change(self) -> None:
        if WeightFile.at(self.path) != self:
            raise InputError(f"model file {self.path!r}: it changed before it was read")


def main(path: str, algorithm: str) -> int:
    """Print the fields as JSON; one line on stderr and 1 where there are none."""
    from provenance.fingerprint.hashers import HashFactory
    from provenance.fingerprint.tensors import state_digest_file

    try:
        fields = state_digest_file(path, HashFactory(algorithm)).as_fields()
    except ProvenanceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(fields))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
