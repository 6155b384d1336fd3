"""Starts, watches and ends the devnet's servers; they outlive the process that started them."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from provenance.app.processes import free_ports, log_tail, log_text
from provenance.errors import ProvenanceError, ServerMissingError, UnavailableError
from provenance_devnet import processes, programs, rpc
from provenance_devnet.nodes import NODES, Node
from provenance_devnet.servers import (
    BY_HAND,
    CHAINS,
    InstallResult,
    Progress,
    ServerState,
    chosen,
    home,
    silent,
)
from provenance_devnet.state import Book, Entry

# The words of redis, anvil, geth, Kubo; of js-ipfs; of bitcoind.
_PORT_TAKEN = re.compile(
    r"address already in use|EADDRINUSE|unable to bind|unable to start http server", re.IGNORECASE
)

_MINER = "miner"  # Beside the servers in the state file; no server itself.


class _PortTakenError(UnavailableError):
    """Somebody took the port between our look and the server's bind."""


class Devnet:
    """The four servers of one state folder.

    Args:
        root: The project's folder; its ``.devnet/`` holds what ``install`` brought.
        state_dir: Where state file, data and logs go; ``.devnet/`` as well when None. With
            another folder it is a devnet of its own that only shares the programs.
        flags: More command-line flags by server name, for tests.
    """

    def __init__(
        self,
        root: Path,
        state_dir: Path | None = None,
        *,
        flags: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.root = Path(root)
        self.home = home(self.root)
        self.state_dir = self.home if state_dir is None else Path(state_dir).absolute()
        self._flags = dict(flags or {})

    @property
    def state_file(self) -> Path:
        """Where the running servers are written down."""
        return self.state_dir / "state.json"

    def log(self, name: str) -> Path:
        """A server's log file."""
        return self.state_dir / "log" / f"{name}.log"

    def install(
        self, only: Collection[str] | None = None, progress: Progress = silent
    ) -> list[InstallResult]:
        """Brings the programs; see :func:`provenance_devnet.install`."""
        from provenance_devnet.installer import install

        return install(self.root, only, progress)

    def up(
        self, only: Collection[str] | None = None, progress: Progress = silent
    ) -> list[ServerState]:
        """Starts what is installed and not up yet, in parallel, and waits until it answers.

        A server that is missing or fails comes back with its ``problem``; the others go on. When
        this is interrupted, what it started is ended again.

        Raises:
            UsageError: ``only`` holds an unknown name.
            UnavailableError: Another command holds this devnet and does not let go.
        """
        names = chosen(only)
        with processes.interruptible(), self._exclusively():
            book = Book(self.state_file)
            cancel = threading.Event()
            fresh: list[str] = []
            with ThreadPoolExecutor(len(names) or 1, "devnet-up") as pool:
                waiting = [
                    pool.submit(self._ensure, name, book, fresh, cancel, progress) for name in names
                ]
                try:
                    return [each.result() for each in waiting]
                except BaseException:
                    cancel.set()
                    pool.shutdown(wait=True)
                    self._end(fresh, book, silent)
                    raise

    def down(
        self, only: Collection[str] | None = None, progress: Progress = silent
    ) -> list[ServerState]:
        """Ends the servers that the state file names; fine when there are none.

        Returns:
            The servers that were named, as they are now.
        """
        names = chosen(only)
        if not self.state_file.exists():
            return []
        with self._exclusively():
            book = Book(self.state_file)
            ended = self._end(names, book, progress)
            if not any(map(book.get, CHAINS)):
                self._end([_MINER], book, silent)
            return ended

    def status(self, only: Collection[str] | None = None) -> list[ServerState]:
        """Asks every server; one that is not up says why and what to do."""
        names = chosen(only)
        book = Book(self.state_file)
        with ThreadPoolExecutor(len(names) or 1, "devnet-status") as pool:
            return list(pool.map(lambda name: self._look(name, book), names))

    def mine(self, blocks: int = 1) -> dict[str, int]:
        """Adds blocks to the chains that run, to both at once; their new heights.

        Raises:
            ServerMissingError: None runs.
            NetworkUnavailable: One did not answer; the other was mined on.
        """
        states = [state for state in self.status(CHAINS) if state.pid is not None]
        if not states:
            raise ServerMissingError("no chain runs here; start them with: provenance devnet up")
        with ThreadPoolExecutor(len(states), "devnet-mine") as pool:
            heights = pool.map(lambda state: rpc.mine(state, blocks), states)
        return {state.name: height for state, height in zip(states, heights, strict=True)}

    def mine_every(self, seconds: float) -> None:
        """From now on a block on each chain that often, by a process that ends with the chains;
        with 0 none."""
        with self._exclusively():
            book = Book(self.state_file)
            self._end([_MINER], book, silent)
            if seconds and any(map(book.get, CHAINS)):
                argv = [sys.executable, "-m", "provenance_devnet.miner"]
                argv += [str(self.root.absolute()), str(self.state_dir), str(seconds)]
                pid, started = processes.spawn(argv, {}, self.log(_MINER), self.state_dir)
                book.put(_MINER, Entry(_MINER, pid, started, "", {"seconds": str(seconds)}))

    def mines_every(self) -> float:
        """Seconds between the blocks that come by themselves; 0 where none do."""
        entry = Book(self.state_file).get(_MINER)
        if entry is None or not processes.alive(entry.pid, entry.started):
            return 0.0
        return float(entry.detail["seconds"])

    @contextlib.contextmanager
    def running(
        self,
        only: Collection[str] | None = None,
        *,
        ephemeral: bool = False,
        scratch: Path | None = None,
        progress: Progress = silent,
    ) -> Iterator[dict[str, ServerState]]:
        """Servers for the length of a ``with`` block, by name; those that did not start too.

        On leaving, what was started here is ended; what was up before stays up.

        Args:
            only: Some of the servers; all when None.
            ephemeral: Use a new, empty state folder instead, and remove it at the end.
            scratch: Where that folder is made; the system's place for such when None.
            progress: Told what happens.
        """
        if ephemeral:
            if scratch is not None:
                scratch.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix="devnet-", dir=scratch))
            other = Devnet(self.root, folder, flags=self._flags)
            try:
                with other.running(only, progress=progress) as servers:
                    yield servers
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
        with processes.interruptible(once=False):
            before = {each.name for each in self.status(only) if each.running}
            try:
                yield {each.name: each for each in self.up(only, progress)}
            finally:
                with processes.deaf():
                    self.down([name for name in chosen(only) if name not in before])

    def _exclusively(self) -> contextlib.AbstractContextManager[None]:
        return processes.file_lock(self.state_dir / "state.lock", 240)

    def _look(self, name: str, book: Book) -> ServerState:
        entry = book.get(name)
        if entry is None or not processes.alive(entry.pid, entry.started):
            program = programs.find(name, self.home)
            if program is None:
                return ServerState(name, "", None, "", problem=f"not installed: {BY_HAND[name]}")
            problem = "not running; start it with: provenance devnet up"
            if entry is not None:
                problem += f" (it died; log: {log_tail(self.log(name), lines=1)})"
            return ServerState(name, program.kind, None, "", problem=problem)
        state = entry.state(name, running=True)
        try:
            NODES[entry.kind].probe(state, 5.0)
        except (ProvenanceError, KeyError) as error:
            return replace(state, running=False, problem=f"runs but does not answer: {error}")
        return state

    def _ensure(
        self,
        name: str,
        book: Book,
        fresh: list[str],
        cancel: threading.Event,
        progress: Progress,
    ) -> ServerState:
        found = self._look(name, book)
        if found.running:
            progress(name, f"is up at {found.url}")
            return found
        self._end([name], book, silent)  # one that hangs gives way to a new one
        kind = ""
        try:
            program = programs.require(name, self.home)
            kind = program.kind
            data = self.state_dir / "data" / kind
            node = NODES[kind](program.path, data, self._flags.get(name, ()))
            progress(name, f"starting {kind}")
            fresh.append(name)
            try:
                state = self._start(name, node, book, cancel, book.ports(name))
            except _PortTakenError:
                self._end([name], book, silent)
                state = self._start(name, node, book, cancel, ())
        except (ProvenanceError, OSError, ValueError) as error:
            self._end([name], book, silent)
            progress(name, str(error))
            return ServerState(name, kind, None, "", problem=str(error))
        progress(name, f"is up at {state.url}")
        return state

    def _start(
        self,
        name: str,
        node: Node,
        book: Book,
        cancel: threading.Event,
        wanted: Sequence[int],
    ) -> ServerState:
        node.prepare(cancel)
        ports = free_ports(node.ports, wanted)
        launch = node.launch(ports)
        if cancel.is_set():
            raise processes.Interrupted(f"{name}: interrupted")
        log = self.log(name)
        since = log.stat().st_size if log.exists() else 0
        pid, started = processes.spawn(launch.argv, launch.env, log, node.data)
        # Written down before it is ready: whatever happens to us, `down` finds the process.
        entry = Entry(node.kind, pid, started, launch.url, dict(launch.detail))
        book.put(name, entry, ports)
        state = entry.state(name, running=True)
        self._await_ready(name, node, entry, since, cancel)
        try:
            entry = replace(entry, detail={**entry.detail, **node.settle(state)})
        except ProvenanceError as error:
            tail = log_tail(log, since)
            raise UnavailableError(
                f"{name} started but could not be set up: {error}; log: {tail}"
            ) from error
        book.put(name, entry)
        return entry.state(name, running=True)

    def _await_ready(
        self, name: str, node: Node, entry: Entry, since: int, cancel: threading.Event
    ) -> None:
        state = entry.state(name, running=True)
        log = self.log(name)
        end = time.monotonic() + node.ready_within
        while True:
            if cancel.wait(0.1):
                raise processes.Interrupted(f"{name}: interrupted")
            ended = not processes.alive(entry.pid, entry.started)
            try:
                node.probe(state, 3.0)
                problem = None
            except ProvenanceError as error:
                problem = str(error)
            # Looked at even when something answers: it may be another server on that port,
            # and js-ipfs lives on without its port.
            if _PORT_TAKEN.search(log_text(log, since)):
                raise _PortTakenError(f"{name} ({node.kind}) found its port taken: {entry.url}")
            if problem is None and not ended:
                return
            if ended or time.monotonic() > end:
                what = (
                    "ended while it was starting"
                    if ended
                    else f"was not ready after {node.ready_within:.0f} s ({problem})"
                )
                tail = log_tail(log, since)
                raise UnavailableError(f"{name} ({node.kind}) {what}; log: {tail}")

    def _end(self, names: Collection[str], book: Book, progress: Progress) -> list[ServerState]:
        entries = [(name, entry) for name in names if (entry := book.get(name)) is not None]

        def end(name: str, entry: Entry) -> ServerState:
            node = NODES.get(entry.kind, Node)
            processes.stop(entry.pid, entry.started, node.stop_within)
            if processes.alive(entry.pid, entry.started):
                problem = f"process {entry.pid} does not end"
                return entry.state(name, running=True, problem=problem)
            book.drop(name)
            progress(name, "stopped")
            return ServerState(name, entry.kind, None, "", problem="stopped")

        with ThreadPoolExecutor(len(entries) or 1, "devnet-down") as pool:
            return list(pool.map(lambda pair: end(*pair), entries))
